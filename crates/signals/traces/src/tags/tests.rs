use super::*;

#[test]
fn names_of_tags() {
    for (name, expected) in [
        ("status", Attribute::Intrinsic(Intrinsic::Status)),
        ("resource.service.name", Attribute::Named(Scope::Resource, "service.name".into())),
        (".http.method", Attribute::Named(Scope::Any, "http.method".into())),
        ("http.method", Attribute::Named(Scope::Any, "http.method".into())),
        ("span.id", Attribute::Named(Scope::Span, "id".into())),
        ("event.message", Attribute::Named(Scope::Event, "message".into())),
    ] {
        assert_eq!(parse_tag(name), expected, "{name}");
    }
}

#[test]
fn answers_are_bounded() {
    let select = TagsSelect { limit: 3, name: ".x".into(), ..TagsSelect::default() };
    let mut values = TagValues::new(&select);
    let mut names = TagNames::new(&select);
    for i in 0..10 {
        values.add(Value::Int(i));
        values.add(Value::Int(0));
        names.add(Scope::Span, &format!("n{i}"));
    }
    assert!(values.done());
    assert_eq!(values.finish().len(), 3);
    let names = names.finish();
    assert_eq!(names[0].tags, ["n0", "n1", "n2"]);

    let select = TagsSelect { name: ".x".into(), ..TagsSelect::default() };
    let mut values = TagValues::new(&select);
    let mut names = TagNames::new(&select);
    let long = "x".repeat(1_000_000);
    for i in 0..10 {
        values.add(Value::String(format!("{long}{i}")));
        names.add(Scope::Span, &format!("{long}{i}"));
    }
    assert_eq!(values.finish().len(), 4);
    assert_eq!(names.finish()[0].tags.len(), 4);
}
