use proptest::prelude::*;

use super::*;

fn patterns(lines: &[&str]) -> Vec<(String, u64)> {
    let mut patterns = Patterns::new(10);
    lines.iter().enumerate().for_each(|(i, line)| patterns.add(i as i64, line));
    patterns.finish().into_iter().map(|p| (p.text.clone(), p.total())).collect()
}

#[test]
fn lines_of_one_kind() {
    let got = patterns(&[
        "GET /api/users took 12ms",
        "GET /api/orders took 7ms",
        "GET /api/orders took 1.5s",
        "connection from 10.0.0.1:8080 closed",
        "connection from 10.0.0.77:9 closed",
        "connection to nowhere refused",
    ]);
    let want =
        [("GET <_> took <_>", 3), ("connection from <_> closed", 2), ("connection to nowhere refused", 1)];
    assert_eq!(got, want.map(|(text, count)| (text.to_owned(), count)));
}

#[test]
fn structure_stays() {
    let got = patterns(&[
        r#"{"level":"info","msg":"request done","status":200,"user":"ann"}"#,
        r#"{"level":"info","msg":"request done","status":404,"user":"bob"}"#,
        r#"ts=2024-05-06T07:08:09Z level=warn msg="slow query" took=5s"#,
        r#"ts=2024-05-06T07:08:10Z level=warn msg="slow query" took=71ms"#,
    ]);
    assert_eq!(
        got,
        [
            (r#"ts=<_> level=warn msg="slow query" took=<_>"#.to_owned(), 2),
            (r#"{"level":"info","msg":"request done","status":<_>,"user":"<_>"}"#.to_owned(), 2),
        ]
    );
}

#[test]
fn counts_are_told_by_step() {
    let mut patterns = Patterns::new(10);
    for ts in [-1, 0, 9, 10, 25, 29] {
        patterns.add(ts, "tick");
    }
    let found = patterns.finish();
    assert_eq!(found[0].lines, BTreeMap::from([(-10, 1), (0, 2), (10, 1), (20, 2)]));
}

#[test]
fn the_frequent_stay() {
    let mut patterns = Patterns::new(1);
    let letters = |mut n: usize| {
        let mut word = String::new();
        for _ in 0..4 {
            word.push(char::from(b'a' + (n % 26) as u8));
            n /= 26;
        }
        word
    };
    for i in 0..5000 {
        patterns.add(0, "often here");
        patterns.add(0, &format!("{} rare", letters(i)));
    }
    assert!(patterns.count <= KINDS_MAX);
    let forgotten = patterns.forgotten();
    let found = patterns.finish();
    assert_eq!((found[0].text.as_str(), found[0].total()), ("often here", 5000));
    assert_eq!(found.iter().map(Pattern::total).sum::<u64>() + forgotten, 10_000);
}

proptest! {
    #[test]
    fn every_line_is_counted(lines in proptest::collection::vec(any::<String>(), 0..40)) {
        let mut patterns = Patterns::new(1);
        lines.iter().for_each(|line| patterns.add(0, line));
        let found = patterns.finish();
        prop_assert_eq!(found.iter().map(Pattern::total).sum::<u64>(), lines.len() as u64);
    }
}
