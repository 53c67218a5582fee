import { runPullThread } from "../../../../src/kv/transfer/kvtransfer/pull_thread.ts";

runPullThread();
