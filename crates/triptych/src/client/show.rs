//! Answers as a person reads them.

use anyhow::Result;
use serde_json::Value as Json;

use crate::cli::ClientFlags;

/// As JSON where that was asked for, else with `human`. Warnings go to standard error.
pub fn print(client: &ClientFlags, answer: &Json, human: impl Fn(&Json)) -> Result<()> {
    if client.json {
        println!("{}", serde_json::to_string_pretty(answer)?);
        return Ok(());
    }
    for warning in array(&answer["warnings"]) {
        eprintln!("warning: {}", text(warning));
    }
    human(answer);
    Ok(())
}

fn array(value: &Json) -> &[Json] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Json) -> &str {
    value.as_str().unwrap_or_default()
}

fn labels(set: &Json) -> String {
    let Some(set) = set.as_object() else { return "{}".to_owned() };
    let name = set.get("__name__").map(text).unwrap_or_default();
    let pairs: Vec<String> =
        set.iter().filter(|(k, _)| *k != "__name__").map(|(k, v)| format!("{k}={:?}", text(v))).collect();
    format!("{name}{{{}}}", pairs.join(", "))
}

fn time(ns: i128) -> String {
    jiff::Timestamp::from_nanosecond(ns).map_or_else(|_| ns.to_string(), |t| format!("{t:.3}"))
}

fn seconds(value: &Json) -> String {
    time((value.as_f64().unwrap_or_default() * 1e3) as i128 * 1_000_000)
}

pub fn metrics(answer: &Json) {
    let data = &answer["data"];
    match text(&data["resultType"]) {
        "scalar" | "string" => println!("{}", text(&data["result"][1])),
        "vector" => {
            for one in array(&data["result"]) {
                println!("{}  {}", labels(&one["metric"]), text(&one["value"][1]));
            }
        }
        _ => {
            for one in array(&data["result"]) {
                println!("{}", labels(&one["metric"]));
                for sample in array(&one["values"]) {
                    println!("  {}  {}", seconds(&sample[0]), text(&sample[1]));
                }
            }
        }
    }
}

/// Lines of all streams in one order.
pub fn lines(answer: &Json, forward: bool) {
    if text(&answer["data"]["resultType"]) != "streams" {
        return metrics(answer);
    }
    let mut all: Vec<(i128, String, &str)> = Vec::new();
    for stream in array(&answer["data"]["result"]) {
        let labels = labels(&stream["stream"]);
        for value in array(&stream["values"]) {
            all.push((text(&value[0]).parse().unwrap_or_default(), labels.clone(), text(&value[1])));
        }
    }
    all.sort_by_key(|(ts, ..)| if forward { *ts } else { -*ts });
    for (ts, labels, line) in all {
        println!("{} {labels} {line}", time(ts));
    }
}

pub fn tail(message: &Json) {
    for stream in array(&message["streams"]) {
        let labels = labels(&stream["stream"]);
        for value in array(&stream["values"]) {
            println!("{} {labels} {}", time(text(&value[0]).parse().unwrap_or_default()), text(&value[1]));
        }
    }
}

pub fn traces(answer: &Json) {
    for one in array(&answer["traces"]) {
        println!(
            "{}  {}  {:>8} ms  {}: {}",
            text(&one["traceID"]),
            time(text(&one["startTimeUnixNano"]).parse().unwrap_or_default()),
            one["durationMs"],
            text(&one["rootServiceName"]),
            text(&one["rootTraceName"]),
        );
    }
}

/// A tree of spans by parent, with times relative to the first.
pub fn trace(answer: &Json) {
    let number = |v: &Json| text(v).parse::<i128>().unwrap_or_default();
    let mut spans = Vec::new();
    for batch in array(&answer["batches"]) {
        let service = array(&batch["resource"]["attributes"])
            .iter()
            .find(|a| text(&a["key"]) == "service.name")
            .map(|a| text(&a["value"]["stringValue"]))
            .unwrap_or_default();
        for scope in array(&batch["scopeSpans"]) {
            spans.extend(array(&scope["spans"]).iter().map(|span| (service, span)));
        }
    }
    spans.sort_by_key(|(_, s)| number(&s["startTimeUnixNano"]));
    let origin = spans.first().map_or(0, |(_, s)| number(&s["startTimeUnixNano"]));
    let known: Vec<&str> = spans.iter().map(|(_, s)| text(&s["spanId"])).collect();
    let mut open: Vec<(usize, &str, &Json)> = spans
        .iter()
        .rev()
        .filter(|(_, s)| !known.contains(&text(&s["parentSpanId"])))
        .map(|(n, s)| (0, *n, *s))
        .collect();
    // A span whose parent is itself a descendant would come again; no span is printed twice.
    let mut printed = 0;
    while let Some((depth, service, span)) = open.pop() {
        printed += 1;
        if printed > spans.len() {
            break;
        }
        let (start, end) = (number(&span["startTimeUnixNano"]), number(&span["endTimeUnixNano"]));
        println!(
            "{:>10.3} ms {:>10.3} ms  {}{service}: {}",
            (start - origin) as f64 / 1e6,
            (end - start) as f64 / 1e6,
            "  ".repeat(depth),
            text(&span["name"])
        );
        let children = spans.iter().rev().filter(|(_, s)| text(&s["parentSpanId"]) == text(&span["spanId"]));
        open.extend(children.map(|(n, s)| (depth + 1, *n, *s)));
    }
}
