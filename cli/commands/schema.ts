/** `microperimeter schema`: the JSON Schema that is published as schema/. */
import { jsonSchemaText } from '../config/json-schema.ts';
import { ExitCode } from '../exit-codes.ts';

export function schema(): number {
  process.stdout.write(jsonSchemaText());
  return ExitCode.Ok;
}
