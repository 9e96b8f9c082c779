/**
 * As in package.json; a test compares them. A constant, so that a bundle needs no file beside it.
 */
export const version = '0.1.0';
