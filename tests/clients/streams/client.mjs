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
const mode = process.env.BOWLINE_LIVE
let reached
const done = new Promise((resolve) => (reached = resolve))
let last = "-1"
let cuts = 0
let following = false
const follow = async () => {
  const live = await stream.stream({ offset: last, live: mode })
  live.subscribeJson(async (batch) => {
    for (const message of batch.items) seen.push(message.n)
    last = batch.offset
    // Only an event stream that is open tells a cursor; what came before it was a plain read.
    const open = mode === "long-poll" || batch.cursor !== undefined
    if (!following && open && seen.length >= 100) {
      following = true
      tell({ following: seen.length })
    }
    if (seen.length >= 150) reached()
  })
  // The client opens an event stream again that the server has ended. One that was cut it gives up,
  // with an error here; whoever follows goes on behind what it got last.
  live.closed.catch(() => {
    cuts += 1
    return follow()
  })
}
await follow()
await lines.next()

// The server has gone and come back meanwhile. The producer sends once and does not try again, so
// it must not take a connection of the server before: once a read was answered they are known dead.
await (await stream.stream({ offset: "now", live: false })).json()
for (let n = 100; n < 150; n++) producer.append(JSON.stringify({ n }))
await producer.flush()
await done
tell({ seen, errors, cuts })
process.exit(0)
