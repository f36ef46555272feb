//! Reading a request or an answer allocates nothing once its buffers have grown.

use allocation_counter::measure;
use tollgate_meter::Api;
use tollgate_meter::request::{FieldPath, RequestFacts, Scalar, scan};
use tollgate_meter::response::{JsonWatch, NoText, StreamState, TextBytes, inspect};

#[test]
fn a_request_scan_reuses_its_buffers() {
    let body = br#"{"mod\u0065l":"gpt\u002d4o","max_tokens":256,"stream":true,"user":"a\nb","temperature":0.2,
        "messages":[{"role":"system","content":"be brief"},{"role":"user","content":[{"type":"text","text":"hi"}]}]}"#;
    let wanted = ["user", "messages.0.role", "max_tokens"].map(|path| FieldPath::parse(path).unwrap());
    let mut facts = RequestFacts::new();
    let mut read = || scan(body, Api::ChatCompletions, &wanted, &mut facts).unwrap();
    assert!(
        measure(&mut read).count_total > 0,
        "the first scan needs its buffers: else nothing is measured here"
    );
    read();
    assert_eq!(measure(&mut read).count_total, 0);
    assert_eq!(facts.model.as_ref().unwrap().value, "gpt-4o");
    assert_eq!(facts.wanted[0], Some(Scalar::String("a\nb".to_owned())));
}

#[test]
fn an_answer_needs_no_heap() {
    let body = br#"{"id":"chatcmpl-1","created":1700000000,"model":"gpt-4o","choices":[{"index":0,"message":
        {"role":"assistant","content":"a \"quoted\" text"},"finish_reason":"stop"}],
        "usage":{"prompt_tokens":228,"completion_tokens":70,"total_tokens":298}}"#;
    let whole = measure(|| {
        let answer = JsonWatch::whole(body, Api::ChatCompletions, &mut NoText);
        assert_eq!(answer.usage.unwrap().total(), 298);
    });
    assert_eq!(whole.count_total, 0);
    let pieces = measure(|| {
        let mut watch = JsonWatch::new(Api::ChatCompletions);
        let mut text = TextBytes::default();
        for piece in body.chunks(50) {
            watch.feed(piece, &mut text);
        }
        assert_eq!(watch.finish(&mut text).usage.unwrap().total(), 298);
        assert_eq!(text.0, 15);
    });
    assert_eq!(pieces.count_total, 0);
}

#[test]
fn an_event_needs_no_heap() {
    let event = b"data: {\"id\":\"chatcmpl-1\",\"created\":1700000000,\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"}}]}\n\n";
    let mut state = StreamState::new();
    let mut text = TextBytes::default();
    let read = measure(|| {
        inspect(event, Api::ChatCompletions, &mut state, &mut text);
    });
    assert_eq!((read.count_total, text.0), (0, 2));
}
