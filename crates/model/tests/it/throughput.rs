//! Measured on demand: `cargo test -p bowline-model --release --test it throughput -- --ignored
//! --nocapture`.

#![allow(clippy::print_stderr)]

use std::collections::VecDeque;
use std::time::Instant;

use bowline_model::sse::SseParser;

#[test]
#[ignore = "a measurement, not a check"]
fn throughput_of_the_parser_of_server_sent_events() {
    let event = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\
                 \"delta\":{\"type\":\"text_delta\",\"text\":\"Hello, wor\"}}\n\n";
    let bytes = event.repeat(200_000);
    let started = Instant::now();
    let mut parser = SseParser::default();
    let mut out = VecDeque::new();
    let mut events = 0;
    for piece in bytes.as_bytes().chunks(16 * 1024) {
        parser.feed(piece, &mut out).unwrap();
        events += out.drain(..).len();
    }
    assert_eq!(events, 200_000);
    let rate = bytes.len() as f64 / started.elapsed().as_secs_f64() / 1e6;
    eprintln!("server-sent events: {rate:.0} MB/s");
}
