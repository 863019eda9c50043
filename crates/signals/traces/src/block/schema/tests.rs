use super::*;

/// Leaves as Tempo's own schema lists them: path, physical type, encoding, compression (`-`: the writer's default).
const TEMPO: &str = include_str!("tempo_leaves.txt");

#[test]
fn columns_are_tempos() {
    let schema = Schema::new(&default_dedicated_columns()).unwrap();
    let ours: Vec<String> = schema
        .leaves
        .iter()
        .map(|l| {
            let kind = match l.kind {
                Kind::Text | Kind::Binary => "BYTE_ARRAY",
                Kind::I32 | Kind::U32 => "INT32",
                Kind::I64 | Kind::U64 => "INT64",
                Kind::F64 => "DOUBLE",
                Kind::Bool => "BOOLEAN",
            };
            let layout = match l.layout {
                Layout::Plain | Layout::Lengths => "-",
                Layout::Delta => "DELTA_BINARY_PACKED",
                Layout::Dictionary => "RLE_DICTIONARY",
            };
            let codec = match l.codec {
                Codec::None => "-",
                Codec::Snappy => "SNAPPY",
                Codec::Zstd => "ZSTD",
            };
            format!("{} {kind} {layout} {codec}", l.path)
        })
        .collect();
    let theirs: Vec<&str> = TEMPO.lines().collect();
    assert_eq!(ours, theirs);
}

#[test]
fn unused_dedicated_columns_are_left_out() {
    let schema = Schema::new(&[]).unwrap();
    assert!(schema.leaves.iter().all(|l| !l.path.contains("Dedicated")));
    let blob = DedicatedColumn {
        scope: DedicatedScope::Event,
        name: "exception.stacktrace".into(),
        kind: DedicatedKind::String,
        options: vec!["blob".into()],
    };
    let schema = Schema::new(&[blob]).unwrap();
    let leaf = &schema.leaves[schema.at("rs.ss.Spans.Events.DedicatedAttributes.String01").unwrap()];
    assert_eq!((leaf.codec, leaf.layout, leaf.def_max, leaf.rep_max), (Codec::Zstd, Layout::Lengths, 5, 5));
}

#[test]
fn levels_follow_from_the_lists() {
    let schema = Schema::new(&default_dedicated_columns()).unwrap();
    for (path, def, rep) in [
        ("TraceID", 0, 0),
        ("ServiceStats.SpanCount", 1, 1),
        ("rs.Resource.Attrs.Key", 2, 2),
        ("rs.Resource.Attrs.Value", 3, 3),
        ("rs.Resource.Attrs.ValueUnsupported", 3, 2),
        ("rs.Resource.DedicatedAttributes.String01", 2, 2),
        ("rs.ss.Spans.SpanID", 3, 3),
        ("rs.ss.Spans.Attrs.ValueInt", 5, 5),
        ("rs.ss.Spans.Events.Attrs.ValueBool", 6, 6),
        ("rs.ss.Spans.DedicatedAttributes.Int01", 4, 4),
    ] {
        let leaf = &schema.leaves[schema.at(path).unwrap()];
        assert_eq!((leaf.def_max, leaf.rep_max), (def, rep), "{path}");
    }
}
