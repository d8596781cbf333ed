//! Arrays of events: limits, neighbours of a malformed element, and malformed bytes.

use contracts::{
    Event,
    envelope::{DecodeError, MESSAGE_BYTES_MAX, MESSAGE_EVENTS_MAX, join_events},
};

use crate::one_of_each;

#[test]
fn the_limits_are_those_of_the_cloudevents_and_amqp_contracts() {
    assert_eq!(MESSAGE_EVENTS_MAX, 64);
    assert_eq!(MESSAGE_BYTES_MAX, 262_144);
    let largest = one_of_each().iter().map(|event| event.bytes.len()).max().expect("there are kinds");
    assert!(largest * MESSAGE_EVENTS_MAX < MESSAGE_BYTES_MAX, "64 ordinary events fit one message");
}

#[test]
fn an_array_decodes_to_what_was_joined() {
    let events = one_of_each();
    let body = join_events(events.iter().map(|event| &event.bytes));
    let decoded = Event::decode_message(&body).expect("our own array");
    assert_eq!(decoded.len(), events.len());
    for (decoded, event) in decoded.into_iter().zip(&events) {
        let decoded = decoded.expect("our own event");
        assert_eq!((decoded.id, &*decoded.kind, decoded.fingerprint), (event.id, event.kind, event.fingerprint));
        assert_eq!(decoded.encode(), event.bytes, "{}: encoding is the inverse of decoding", event.kind);
    }
    assert!(Event::decode_message(b"[]").expect("an array").is_empty());
}

#[test]
fn neighbours_of_a_bad_element_survive() {
    let events = one_of_each();
    let good = std::str::from_utf8(&events[0].bytes).expect("JSON is UTF-8");
    let bad_ones = [
        "null".to_owned(),
        "7".to_owned(),
        "{}".to_owned(),
        "[[]]".to_owned(),
        r#""text""#.to_owned(),
        good.replacen(r#""specversion":"1.0""#, r#""specversion":"0.3""#, 1),
        good.replacen(&events[0].id.to_string(), "not-a-uuid", 1),
        good.replacen("00-", "zz-", 1),
        good.replacen(r#""data":"#, r#""atad":"#, 1),
        good.replacen(r#""student:"#, r#""wizard:"#, 1),
    ];
    for bad in bad_ones {
        let body = format!("[{good},{bad},{good}]");
        let decoded = Event::decode_message(body.as_bytes()).expect("the array is well-formed");
        let decodable: Vec<_> = decoded.iter().map(Result::is_ok).collect();
        assert_eq!(decodable, [true, false, true], "{bad}");
        let (raw, _) = decoded.into_iter().nth(1).expect("three").expect_err("the bad one");
        assert_eq!(raw, bad, "a dead letter holds the very bytes");
    }
}

#[test]
fn each_event_comes_with_its_own_bytes() {
    let events = one_of_each();
    let texts: Vec<_> = events.iter().map(|event| String::from_utf8(event.bytes.to_vec()).expect("JSON")).collect();
    for (between, around) in [(",", ""), (" ,\r\n\t", " \n")] {
        let body = format!("{around}[{around}{}{around}]{around}", texts.join(between));
        let elements = Event::decode_elements(body.as_bytes()).expect("an array");
        assert_eq!(elements.len(), texts.len());
        for ((raw, event), text) in elements.iter().zip(&texts) {
            assert_eq!(raw, text);
            assert_eq!(event.as_ref().expect("ours").encode(), text.as_bytes());
        }
    }
}

#[test]
fn a_body_that_is_no_array_is_refused_as_a_whole() {
    let event = &one_of_each()[0].bytes;
    let cut = join_events([event, event].into_iter());
    for body in [&b""[..], b"{}", b"null", b"[1,", b"[]]", b"\xff\xfe", event, &cut[..cut.len() - 1]] {
        assert!(matches!(Event::decode_message(body), Err(DecodeError::Malformed(_))));
    }
}

#[test]
fn deep_json_is_refused_and_not_recursed_into() {
    let depth = MESSAGE_BYTES_MAX / 2;
    let nested = format!("[{}{}]", "[".repeat(depth), "]".repeat(depth));
    assert!(Event::decode_message(nested.as_bytes()).map_or(true, |events| events.iter().all(Result::is_err)));
}

#[test]
fn random_and_mutated_bytes_never_panic() {
    let events = one_of_each();
    let good = join_events(events.iter().map(|event| &event.bytes));
    let mut random = XorShift(0x9e37_79b9_7f4a_7c15);
    for _ in 0..20_000 {
        let mut body = good.clone();
        for _ in 0..=random.below(4) {
            let at = random.below(body.len());
            match random.below(4) {
                0 => body[at] = u8::try_from(random.below(256)).expect("below 256"),
                1 => body.truncate(at.max(1)),
                2 => body.insert(at, b"\"\\{}[],:0\x00\xff"[random.below(11)]),
                _ => drop(body.remove(at.min(body.len() - 1))),
            }
            if body.is_empty() {
                body.push(b'[');
            }
        }
        for event in Event::decode_message(&body).into_iter().flatten().flatten() {
            if let Some(kind) = contracts::catalog::Kind::named(&event.kind) {
                let _valid = (kind.check)(event.data.get().as_bytes());
            }
        }
    }
    for length in 0..2_000 {
        let noise: Vec<u8> = (0..length).map(|_| u8::try_from(random.below(256)).expect("below 256")).collect();
        let _refused = Event::decode_message(&noise);
    }
}

/// Reproducible noise: a failure is the same on every machine.
struct XorShift(u64);

impl XorShift {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).expect("below a usize")
    }
}
