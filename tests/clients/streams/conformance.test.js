// The public conformance suite, against the server at BOWLINE_URL.
import { runConformanceTests } from "@durable-streams/server-conformance-tests"

runConformanceTests({
  baseUrl: process.env.BOWLINE_URL,
  subscriptions: true,
  longPollTimeoutMs: Number(process.env.BOWLINE_LONG_POLL_MS),
})
