use std::collections::VecDeque;

use bowline_model::sse::{SseEvent, SseParser, TooLarge};
use proptest::prelude::*;

fn parse(pieces: &[&[u8]]) -> Vec<SseEvent> {
    let mut parser = SseParser::default();
    let mut out = VecDeque::new();
    for piece in pieces {
        parser.feed(piece, &mut out).unwrap();
    }
    out.into()
}

fn event(name: &str, data: &str) -> SseEvent {
    SseEvent {
        name: name.to_owned(),
        data: data.to_owned(),
        id: None,
    }
}

#[test]
fn fields_comments_line_ends_and_the_byte_order_mark_are_read_as_the_standard_says() {
    let text = "\u{feff}: hello\r\ndata: a\rdata:b\n\nevent: x\ndata:  two\nother: 1\nid: 7\n\n\
                event: nothing\n\ndata\n\ndata: lost";
    let mut with_id = event("x", " two");
    with_id.id = Some("7".to_owned());
    assert_eq!(
        parse(&[text.as_bytes()]),
        [event("", "a\nb"), with_id, event("", "")]
    );
}

#[test]
fn an_event_above_the_limit_is_an_error_and_memory_stays_bounded() {
    let mut out = VecDeque::new();
    let mut parser = SseParser::new(16);
    parser.feed(b"data: 0123456789\n", &mut out).unwrap();
    assert_eq!(
        parser.feed(b"data: 0123456789\n", &mut out),
        Err(TooLarge { limit: 16 })
    );
    let mut parser = SseParser::new(16);
    assert_eq!(
        parser.feed(&[b'x'; 17], &mut out),
        Err(TooLarge { limit: 16 })
    );
}

proptest! {
    #[test]
    fn any_split_of_the_bytes_gives_the_same_events(
        text in "(\u{feff})?((data|event|id|:c)(:)?( )?[a-zé✓]{0,6}(\r\n|\n|\r)|\r\n|\n|\r){0,30}",
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let bytes = text.as_bytes();
        let whole = parse(&[bytes]);
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        at.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for to in at {
            pieces.push(&bytes[from..to]);
            from = to;
        }
        pieces.push(&bytes[from..]);
        prop_assert_eq!(parse(&pieces), whole.clone());
        let bytewise: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(parse(&bytewise), whole);
    }
}
