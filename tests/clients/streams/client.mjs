// The published client, over a restart of the server. It tells what it did, one JSON object a line,
// and goes on when it reads a line.
import { createInterface } from "node:readline"
import { DurableStream, IdempotentProducer } from "@durable-streams/client"

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
const tell = (event) => console.log(JSON.stringify(event))
const url = `${process.env.BOWLINE_URL}/v1/stream/client/log`

const stream = await DurableStream.create({ url, contentType: "application/json" })
const errors = []
const producer = new IdempotentProducer(stream, "writer", {
  maxBatchBytes: 200,
  onError: (error) => errors.push(String(error)),
})
for (let n = 0; n < 100; n++) producer.append(JSON.stringify({ n }))
await producer.flush()

const read = await (await stream.stream({ offset: "-1", live: false })).json()
tell({ read: read.map((message) => message.n), errors })

const seen = []
let wanted = 150
let reached
const done = new Promise((resolve) => (reached = resolve))
const live = await stream.stream({ offset: "-1", live: process.env.BOWLINE_LIVE })
live.subscribeJson(async (batch) => {
  for (const message of batch.items) seen.push(message.n)
  if (seen.length >= 100) tell({ caughtUp: seen.length })
  if (seen.length >= wanted) reached()
})
await lines.next()

// The server has gone and come back meanwhile.
for (let n = 100; n < 150; n++) producer.append(JSON.stringify({ n }))
await producer.flush()
await done
tell({ seen, errors })
process.exit(0)
