//! Letters for people and machines: one line each, or everything about one.

use std::{
    fmt::Write as _,
    io::{self, BufWriter, Write},
};

use anyhow::bail;
use drakkar::Bytes;
use serde_json::{Value, json};

use super::{
    Ended, Usage,
    args::{List, Output, Show},
    connect::{Kafka, READER},
    letter::{Letter, PAYLOAD, escape, time_text},
    read::{Range, Reader},
};
use crate::say::say;

pub(super) fn list(args: &List) -> anyhow::Result<Ended> {
    let kafka = Kafka::of(&args.place)?;
    let mut reader = Reader::new(kafka.consumer(READER)?, &kafka.topic);
    let ranges = reader.ranges_of_topic(&args.choice.partition)?;
    reader.read(ranges);
    let mut out = BufWriter::new(io::stdout().lock());
    let (mut seen, mut shown) = (0_u64, 0_u64);
    while args.limit.is_none_or(|limit| shown < limit) {
        let Some(letter) = reader.next(|| false)? else { break };
        seen += 1;
        if !args.choice.matches(&letter) {
            continue;
        }
        shown += 1;
        match args.output {
            Output::Text => writeln!(out, "{}", line(&letter))?,
            Output::Json => writeln!(out, "{}", summary(&letter))?,
        }
    }
    out.flush()?;
    say(&format!("{shown} of {seen} letters of {}", kafka.topic));
    Ok(Ended::Done)
}

/// One letter on one line.
fn line(letter: &Letter) -> String {
    let ours = |name| escape(letter.ours(name).unwrap_or("-".into()).as_bytes());
    let sink = letter.ours("sink").map(|sink| format!(" by {}", escape(sink.as_bytes())));
    let replays = match letter.replays() {
        0 => String::new(),
        count => format!(", replayed {count} times"),
    };
    format!(
        "{}  {}  {}  {}{}  {}  attempt {}{replays}  {}",
        letter.record.coordinates(),
        letter.time().map_or("-".to_owned(), time_text),
        letter.original().unwrap_or_else(|| "-".to_owned()),
        ours("stage"),
        sink.unwrap_or_default(),
        ours("error-class"),
        ours("attempt"),
        ours("error-message"),
    )
}

fn text(bytes: Option<&Bytes>) -> Option<String> {
    bytes.map(|bytes| escape(bytes))
}

/// What `list` says of a letter, for machines.
fn summary(letter: &Letter) -> Value {
    let ours = |name| letter.ours(name).map(std::borrow::Cow::into_owned);
    let record = &letter.record;
    json!({
        "topic": &*record.partition.topic,
        "partition": record.partition.partition,
        "offset": record.offset.0,
        "time": letter.time().map(time_text),
        "original": letter.original(),
        "original_time": letter.original_timestamp().map(time_text),
        "key": text(record.key.as_ref()),
        "stage": ours("stage"),
        "class": ours("error-class"),
        "message": ours("error-message"),
        "attempt": ours("attempt").and_then(|text| text.parse::<u32>().ok()),
        "task": ours("task"),
        "sink": ours("sink"),
        "group": ours("group"),
        "worker": ours("worker"),
        "replays": letter.replays(),
        "value_bytes": record.value.as_ref().map(Bytes::len),
    })
}

pub(super) fn show(args: &Show) -> anyhow::Result<Ended> {
    let (topic, partition, offset) = coordinates(&args.coordinates)?;
    let mut place = args.place.clone();
    place.topic = topic.or(place.topic);
    let kafka = Kafka::of(&place)?;
    let mut reader = Reader::new(kafka.consumer(READER)?, &kafka.topic);
    let held = reader.ranges_of_topic(&[partition])?;
    let holds = held.iter().any(|range| range.next <= offset && offset < range.end);
    if holds {
        reader.read(vec![Range { partition, next: offset, end: offset + 1 }]);
    }
    let Some(letter) = reader.next(|| false)? else {
        bail!("there is no letter at {}:{partition}:{offset}", kafka.topic);
    };
    let mut out = io::stdout().lock();
    match args.output {
        Output::Text => out.write_all(full(&letter).as_bytes())?,
        Output::Json => writeln!(out, "{}", full_json(&letter))?,
    }
    Ok(Ended::Done)
}

/// `PARTITION:OFFSET` with or without a topic before it.
fn coordinates(text: &str) -> anyhow::Result<(Option<String>, i32, i64)> {
    let mut parts = text.rsplitn(3, ':');
    let offset = parts.next().and_then(|part| part.parse::<i64>().ok());
    let partition = parts.next().and_then(|part| part.parse::<i32>().ok());
    match (partition, offset) {
        (Some(partition), Some(offset)) => Ok((parts.next().map(str::to_owned), partition, offset)),
        _ => bail!(Usage(format!("{text:?} is not PARTITION:OFFSET or TOPIC:PARTITION:OFFSET"))),
    }
}

/// Everything about a letter.
fn full(letter: &Letter) -> String {
    let record = &letter.record;
    let or_null = |bytes: Option<&Bytes>| text(bytes).unwrap_or_else(|| "(null)".to_owned());
    let mut lines = vec![
        format!("letter     {}", record.coordinates()),
        format!("given up   {}", letter.time().map_or("-".to_owned(), time_text)),
        format!("message    {}", letter.original().unwrap_or_else(|| "-".to_owned())),
        format!("written    {}", letter.original_timestamp().map_or("-".to_owned(), time_text)),
        format!("replays    {}", letter.replays()),
        format!("key        {}", or_null(record.key.as_ref())),
    ];
    let original = letter.original_headers().len();
    let parts = [("headers", &record.headers[..original]), ("why", &record.headers[original..])];
    for (name, headers) in parts {
        lines.push(name.to_owned());
        let row = |header: &drakkar::Header| {
            format!("  {} = {}", escape(header.name.as_bytes()), or_null(header.value.as_ref()))
        };
        let is_shown_below = |header: &&drakkar::Header| name == "why" && &*header.name == PAYLOAD;
        lines.extend(headers.iter().filter(|header| !is_shown_below(header)).map(row));
    }
    for json in letter.payloads() {
        lines.push(format!("payload    {} bytes", json.len()));
        lines.push(plain(json));
    }
    lines.push(format!("value      {} bytes", record.value.as_ref().map_or(0, Bytes::len)));
    lines.push(or_null(record.value.as_ref()));
    lines.join("\n") + "\n"
}

/// JSON as it is, but for characters that a terminal would obey.
fn plain(json: &[u8]) -> String {
    let mut text = String::with_capacity(json.len());
    for c in String::from_utf8_lossy(json).chars() {
        if c.is_control() || c == '\u{2028}' || c == '\u{2029}' {
            // As JSON writes it; a String takes everything that is written to it.
            write!(text, "\\u{:04x}", u32::from(c)).ok();
        } else {
            text.push(c);
        }
    }
    text
}

fn full_json(letter: &Letter) -> Value {
    let mut all = summary(letter);
    let header = |header: &drakkar::Header| json!([&*header.name, text(header.value.as_ref())]);
    if let Some(all) = all.as_object_mut() {
        let headers: Value = letter.record.headers.iter().map(header).collect();
        all.insert("headers".to_owned(), headers);
        // As text: a number of JSON may have more digits than one in here.
        let payloads: Value = letter.payloads().into_iter().map(String::from_utf8_lossy).collect();
        all.insert("payloads".to_owned(), payloads);
        all.insert("value".to_owned(), text(letter.record.value.as_ref()).into());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::{super::letter::tests::letter, *};

    #[test]
    fn a_letter_is_one_line() {
        assert_eq!(
            line(&letter(&[("drakkar-replays", "2")])),
            "orders_dlq:1:7  2026-11-18T11:06:40.000Z  orders:3:42  execute  exit_code  attempt 4, \
             replayed 2 times  exit code 3"
        );
    }

    #[test]
    fn everything_is_shown_and_bytes_are_escaped() {
        let text = full(&letter(&[("a", "1\n2")]));
        for part in
            ["key        \\xff\\u{0}k\n", "headers\n  a = 1\\n2\nwhy\n  drakkar-stage = execute"]
        {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn for_machines_a_letter_is_an_object_with_every_header_in_order() {
        let all = full_json(&letter(&[("a", "1"), ("a", "2")]));
        assert_eq!(all["original"], "orders:3:42");
        assert_eq!(all["headers"][1], json!(["a", "2"]));
        assert_eq!(all["attempt"], 4);
        assert_eq!(all["key"], "\\xff\\u{0}k");
    }

    #[test]
    fn a_payload_is_shown_as_it_is_on_a_line_of_its_own_and_no_terminal_obeys_it() {
        let mut letter = letter(&[]);
        let json = "{\"kafka\":{\"value\":\"\\\"1\u{7f}\"}}";
        letter.record.headers.push(drakkar::Header::new(PAYLOAD, json));
        let text = full(&letter);
        let shown = "payload    26 bytes\n{\"kafka\":{\"value\":\"\\\"1\\u007f\"}}\n";
        assert!(text.contains(shown) && !text.contains(PAYLOAD), "{text}");
        assert_eq!(full_json(&letter)["payloads"][0], json);
    }

    #[test]
    fn coordinates_name_a_topic_or_not() {
        assert_eq!(coordinates("1:7").unwrap(), (None, 1, 7));
        assert_eq!(coordinates("a:1:7").unwrap(), (Some("a".to_owned()), 1, 7));
        assert!(coordinates("7").unwrap_err().is::<Usage>());
    }
}
