/** Worker of prompt_encoder_test.ts. */
import { runEncoderWorker } from "../../../src/frontend/encoding/encoder_worker.ts";

runEncoderWorker();
