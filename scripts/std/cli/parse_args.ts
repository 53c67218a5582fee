export function parseArgs() {}
