/** What a connection to another process speaks: a version, and what each message has to look like. */
export interface Protocol {
  readonly version: number;
  readonly calls: Readonly<Record<string, CallChecks | undefined>>;
  readonly notifications: Readonly<Record<string, MessageCheck | undefined>>;
  /** How the data of a notification is sent, if not as it is: JSON data that its check reads. */
  // deno-lint-ignore no-explicit-any -- what a notification carries is known where it is sent
  readonly packers?: Readonly<Record<string, ((data: any) => unknown) | undefined>>;
}

/** Returns the data of a message. @throws {MessageError} it does not fit, and which field */
export type MessageCheck = (data: unknown) => unknown;

export interface CallChecks {
  readonly request: MessageCheck;
  readonly reply: MessageCheck;
}
