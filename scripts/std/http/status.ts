export const STATUS_CODE = { OK: 200 } as const;
