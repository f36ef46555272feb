//! Clients of one protocol, deployments of another: what each side sees, and what it is charged.

mod translated;

use serde_json::{Value, json};
use tollgate_tests::access;
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::Request;
use tollgate_tests::mock::words;
use translated::{Answer, PAIRS, Pair, Party, read};

async fn serving(pair: Pair, options: &str) -> (Gateway, Party) {
    let party = Party::start("far", pair.upstream).await;
    let documents = Documents::new()
        .model_value(json!({ "name": "m", "tokenizer": "o200k_base",
            "deployments": [party.deployment(1, options)] }))
        .provider(party.provider())
        .limited("c", limits(1_000));
    (Gateway::with(documents).start().await, party)
}

fn limits(output: u64) -> Value {
    json!([{ "name": "in", "metric": "input_tokens", "max": 100_000, "window": "10m" },
        { "name": "out", "metric": "output_tokens", "max": output, "window": "10m" }])
}

#[tokio::test]
async fn plain_and_streamed_answers_are_the_clients_own_and_charged_as_served() {
    for pair in PAIRS {
        let (gateway, party) = serving(pair, "tokens=7").await;
        for stream in [false, true] {
            let request = pair.client.request("m", 40, stream);
            let answer = gateway.send(&request).await;
            assert_eq!(answer.status(), 200, "{pair:?} {stream} {}", answer.text());
            let read = read(pair.client, stream, &answer);
            assert_eq!(read.text, words::text(0, 7), "{pair:?} {}", answer.text());
            assert_eq!(read.finish, pair.client.stop());
            let record = party.mock.stats().last().unwrap();
            party.assert_own(&record, "tokens=7", stream);
            let body = record.json().unwrap();
            assert_eq!(pair.upstream.max_tokens(&body), 40, "{body}");
            let served = party.mock.stats().total();
            assert_eq!(served.completed, 1 + u64::from(stream));
            let entries = access::entries(&gateway.nginx, "c", 1 + usize::from(stream)).await;
            let charged = entries.last().unwrap().charged();
            let input = served.prompt_tokens / served.requests;
            assert_eq!(charged, (input, 7, "upstream"), "{pair:?} {stream}");
            assert_eq!(
                read.usage,
                Some((input, 7)),
                "{pair:?} {stream} {}",
                answer.text()
            );
        }
        gateway.wait_idle().await;
        let served = party.mock.stats().total();
        assert_eq!(gateway.used("c", "in").await, served.prompt_tokens);
        assert_eq!(gateway.used("c", "out").await, served.completion_tokens);
        gateway.stop().await;
    }
}

#[tokio::test]
async fn tools_and_images_go_there_and_calls_come_back() {
    for pair in PAIRS {
        let (gateway, party) = serving(pair, "tokens=3&tool=yes").await;
        for stream in [false, true] {
            let request = pair.client.with_tool_and_image("m", stream);
            let answer = gateway.send(&request).await;
            assert_eq!(answer.status(), 200, "{pair:?} {stream} {}", answer.text());
            let read = read(pair.client, stream, &answer);
            assert_eq!(
                read.text,
                words::text(0, 3),
                "{pair:?} {stream} {}",
                answer.text()
            );
            let (name, arguments) = read.tool.expect("a tool call");
            assert_eq!(name, "weather");
            assert_eq!(
                arguments,
                json!({ "city": "Paris", "days": 2 }),
                "{pair:?} {stream}"
            );
            assert_eq!(read.finish, pair.client.tool_stop());
            let body = party.mock.stats().last().unwrap().json().unwrap();
            assert!(pair.upstream.has_image(&body), "{pair:?} {body}");
        }
        gateway.stop().await;
    }
}

#[tokio::test]
async fn errors_come_in_the_clients_shape_with_its_status() {
    for pair in PAIRS {
        for (status, mapped) in [
            (400, [400, 400]),
            (429, [429, 429]),
            (503, [503, 529]),
            (529, [503, 529]),
        ] {
            let (gateway, _party) = serving(pair, &format!("status={status}")).await;
            for stream in [false, true] {
                let answer = gateway.send(&pair.client.request("m", 9, stream)).await;
                let expected = mapped[usize::from(pair.client.is_anthropic())];
                assert_eq!(answer.status(), expected, "{pair:?} {status} {}", answer.text());
                assert_eq!(answer.header("content-type"), Some("application/json"));
                assert_eq!(
                    answer.header("content-length"),
                    Some(&*answer.body.len().to_string())
                );
                let body = answer.json();
                assert!(body["error"]["message"].is_string(), "{pair:?} {body}");
                assert_eq!(body["type"] == "error", pair.client.is_anthropic(), "{body}");
            }
            gateway.wait_idle().await;
            assert_eq!(gateway.used("c", "out").await, 0);
            gateway.stop().await;
        }
    }
}

#[tokio::test]
async fn a_death_in_mid_answer_is_told_in_the_clients_shape() {
    for pair in PAIRS {
        for fault in ["close=mid", "reset=mid", "fail=mid", "garbage=mid"] {
            let (gateway, party) = serving(pair, &format!("tokens=20&{fault}")).await;
            let answer = gateway.send(&pair.client.request("m", 40, true)).await;
            assert_eq!(answer.status(), 200);
            let events = answer.events();
            let last = events.last().expect("events").json();
            assert!(
                last["error"]["message"].is_string(),
                "{pair:?} {fault} {}",
                answer.text()
            );
            assert_eq!(last["type"] == "error", pair.client.is_anthropic(), "{last}");
            gateway.wait_idle().await;
            // What came until then is charged, by the upstream's word or our count.
            let served = party.mock.stats().total().completion_tokens;
            let charged = access::entries(&gateway.nginx, "c", 1).await[0].number("output");
            assert!(
                charged > 0 && charged <= served,
                "{pair:?} {fault}: {charged} of {served}"
            );
            gateway.stop().await;
        }
        for fault in ["close=mid", "garbage=head", "gzip=yes"] {
            let (gateway, _party) = serving(pair, &format!("tokens=20&{fault}")).await;
            let answer = gateway.send(&pair.client.request("m", 40, false)).await;
            assert_eq!(answer.status(), 502, "{pair:?} {fault} {}", answer.text());
            let body = answer.json();
            assert!(body["error"]["message"].is_string(), "{body}");
            assert_eq!(body["type"] == "error", pair.client.is_anthropic(), "{body}");
            if fault == "gzip=yes" {
                assert!(answer.text().contains("compressed"), "{}", answer.text());
            }
            // The connection to the client is good for the next request.
            gateway.wait_idle().await;
            gateway.stop().await;
        }
    }
}

#[tokio::test]
async fn a_stream_ends_at_its_reservation_in_the_clients_shape() {
    for pair in PAIRS {
        let party = Party::start("far", pair.upstream).await;
        let documents = Documents::new()
            .model_value(json!({ "name": "m", "tokenizer": "o200k_base",
                "deployments": [party.deployment(1, "tokens=60&ignore_max=yes")] }))
            .provider(party.provider())
            .limited("c", limits(20));
        let gateway = Gateway::with(documents).start().await;
        let answer = gateway.send(&pair.client.request("m", 1_000, true)).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let read = read(pair.client, true, &answer);
        assert_eq!(read.text, words::text(0, 20), "{pair:?} {}", answer.text());
        assert_eq!(read.finish, pair.client.cut());
        let body = party.mock.stats().last().unwrap().json().unwrap();
        assert_eq!(pair.upstream.max_tokens(&body), 20);
        gateway.wait_idle().await;
        assert_eq!(gateway.used("c", "out").await, 20);
        gateway.stop().await;
    }
}

#[tokio::test]
async fn a_stream_cut_anywhere_says_the_same() {
    for pair in PAIRS {
        let (gateway, _party) = serving(pair, "tokens=30&split=1..9&eol=crlf").await;
        let answer = gateway.send(&pair.client.request("m", 40, true)).await;
        let read: Answer = read(pair.client, true, &answer);
        assert_eq!(read.text, words::text(0, 30), "{pair:?} {}", answer.text());
        assert_eq!(read.finish, pair.client.stop());
        gateway.stop().await;
    }
}

#[tokio::test]
async fn usage_is_told_only_to_those_who_asked() {
    for pair in PAIRS.into_iter().filter(|pair| !pair.client.is_anthropic()) {
        let (gateway, _party) = serving(pair, "tokens=5").await;
        let request = Request::chat("m", " hello").channel("c").set("stream", true);
        let answer = gateway.send(&request).await;
        let read = read(pair.client, true, &answer);
        assert_eq!((read.usage, &*read.text), (None, &*words::text(0, 5)));
        assert_eq!(
            access::entries(&gateway.nginx, "c", 1).await[0].number("output"),
            5
        );
        gateway.stop().await;
    }
}
