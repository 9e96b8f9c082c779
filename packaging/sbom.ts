/** What the binary contains, as a bill of materials: CycloneDX (ECMA-424), by its own library. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageDirectories } from './licenses.ts';

/** Of @cyclonedx/cyclonedx-library, what is used here. */
export type CycloneDx = {
  readonly Models: {
    readonly Bom: new (options: object) => { readonly components: Set<unknown> };
    readonly Metadata: new (options: object) => object;
    readonly Component: new (
      type: string,
      name: string,
      options: object,
    ) => {
      readonly licenses: Set<unknown>;
      readonly dependencies: Set<unknown>;
      readonly bomRef: { readonly value: string };
    };
    readonly NamedLicense: new (name: string) => object;
    readonly LicenseExpression: new (expression: string) => object;
  };
  readonly Enums: { readonly ComponentType: Readonly<Record<'Application' | 'Library', string>> };
  readonly Spec: { readonly Spec1dot6: object };
  readonly Serialize: {
    readonly JSON: { readonly Normalize: { readonly Factory: new (spec: object) => object } };
    readonly JsonSerializer: new (
      factory: object,
    ) => {
      serialize(bom: object, options: object): string;
    };
  };
  readonly Validation: {
    readonly JsonStrictValidator: new (
      version: string,
    ) => {
      validate(text: string): Promise<unknown>;
    };
  };
};

/**
 * The text of the bill.
 *
 * @param files bundled, by path
 * @param others directories of packages that are in the binary another way
 * @throws Error when it is not valid by CycloneDX's own schema
 */
export async function sbomOf(
  library: CycloneDx,
  files: readonly string[],
  others: readonly string[],
): Promise<string> {
  const { Enums, Models, Serialize, Spec, Validation } = library;
  const componentOf = (directory: string, type: string) => {
    const about = JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8'));
    const { license, name, version } = about as Record<string, string>;
    const purl = `pkg:npm/${name!.replace('@', '%40')}@${version}`;
    const component = new Models.Component(type, name!, { version, purl, bomRef: purl });
    if (license !== undefined) component.licenses.add(new Models.LicenseExpression(license));
    return component;
  };
  const program = componentOf('.', Enums.ComponentType.Application);
  const bom = new Models.Bom({
    metadata: new Models.Metadata({ component: program, timestamp: new Date() }),
  });
  const known = new Set<string>();
  for (const directory of packageDirectories(files, others)) {
    const component = componentOf(directory, Enums.ComponentType.Library);
    // The same package may stand in several places.
    if (known.size === known.add(component.bomRef.value).size) continue;
    bom.components.add(component);
    program.dependencies.add(component.bomRef);
  }
  const factory = new Serialize.JSON.Normalize.Factory(Spec.Spec1dot6);
  const text = new Serialize.JsonSerializer(factory).serialize(bom, { sortLists: true, space: 2 });
  const problem = await new Validation.JsonStrictValidator('1.6').validate(text);
  if (problem !== null)
    throw new Error(`the bill of materials is wrong: ${JSON.stringify(problem)}`);
  return `${text}\n`;
}
