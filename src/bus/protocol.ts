/** What a connection to another process speaks: a version, and what each message has to look like. */
export interface Protocol {
  readonly version: number;
  readonly calls: Readonly<Record<string, CallChecks | undefined>>;
  readonly notifications: Readonly<Record<string, MessageCheck | undefined>>;
}

/** Returns the data of a message. @throws {MessageError} it does not fit, and which field */
export type MessageCheck = (data: unknown) => unknown;

export interface CallChecks {
  readonly request: MessageCheck;
  readonly reply: MessageCheck;
}
