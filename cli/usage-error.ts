/** The command line asks for what there is not; exit code 2. */
export class UsageError extends Error {
  readonly code = 'ERR_USAGE';
}
