import { runTransferThread } from "../../../../src/kv/transfer/gloo/transfer_thread.ts";

runTransferThread();
