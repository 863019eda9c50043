use super::*;
use crate::block::schema::{DedicatedKind, DedicatedScope, default_dedicated_columns};

/// The fields as Tempo writes them, older ones (`encoding`, `dataEncoding`) included.
const TEMPO: &str = r#"{"format":"vParquet4","blockID":"b27b0e53-66a0-4505-afd6-434ae3cd4a10","tenantID":"single-tenant",
"startTime":"2022-07-04T11:11:09Z","endTime":"2022-07-04T11:11:35.5Z","totalObjects":133,"size":94257,"compactionLevel":0,
"encoding":"none","indexPageSize":0,"totalRecords":1,"dataEncoding":"","bloomShards":1,"footerSize":18465,
"dedicatedColumns":[{"s":"resource","n":"ip"},{"n":"port","t":"int"},{"s":"event","n":"stack","o":["blob"]}]}"#;

#[test]
fn tempos_meta_is_read() {
    let meta = BlockMeta::parse(TEMPO.as_bytes()).unwrap();
    assert_eq!((meta.start_s, meta.end_s, meta.total_objects), (1_656_933_069, 1_656_933_095, 133));
    let columns: Vec<_> = meta.dedicated_columns.iter().map(|c| (c.scope, c.kind, c.name.as_str())).collect();
    assert_eq!(
        columns,
        [
            (DedicatedScope::Resource, DedicatedKind::String, "ip"),
            (DedicatedScope::Span, DedicatedKind::Int, "port"),
            (DedicatedScope::Event, DedicatedKind::String, "stack"),
        ]
    );
    meta.check_format().unwrap();
    assert!(BlockMeta { format: "v2".into(), ..meta.clone() }.check_format().is_err());
    // A block of whole seconds reaches to the end of its last one.
    let second = 1_000_000_000;
    assert!(meta.overlaps(meta.end_s * second + 999, 0));
    assert!(!meta.overlaps((meta.end_s + 2) * second, 0));
    assert!(!meta.overlaps(1, (meta.start_s - 1) * second));
}

#[test]
fn ours_is_written_as_tempos() {
    let mut meta = BlockMeta::parse(TEMPO.as_bytes()).unwrap();
    meta.dedicated_columns = default_dedicated_columns();
    meta.dedicated_columns.truncate(6);
    let json = String::from_utf8(meta.to_json().unwrap()).unwrap();
    assert!(json.contains(r#""startTime":"2022-07-04T11:11:09Z""#), "{json}");
    assert!(json.contains(r#"{"n":"http.response.status_code","t":"int"}"#), "{json}");
    assert_eq!(BlockMeta::parse(json.as_bytes()).unwrap(), meta);
    let mut compacted = CompactedMeta { meta, compacted_s: 1_700_000_000, replaced_by: None };
    let json = String::from_utf8(compacted.to_json().unwrap()).unwrap();
    assert!(json.contains(r#""compactedTime":"2023-11-14T22:13:20Z""#), "{json}");
    assert!(!json.contains("replacedBy"), "{json}");
    assert_eq!(CompactedMeta::parse(json.as_bytes()).unwrap(), compacted);
    compacted.replaced_by = Some(Uuid::from_u128(7));
    let json = String::from_utf8(compacted.to_json().unwrap()).unwrap();
    assert!(json.contains(r#""replacedBy":"00000000-0000-0000-0000-000000000007""#), "{json}");
    assert_eq!(CompactedMeta::parse(json.as_bytes()).unwrap(), compacted);
}

#[test]
fn the_index_tells_the_row_group() {
    let index = RowGroupIndex(vec![[1; 16], [5; 16]]);
    for (id, row_group) in
        [([0; 16], Some(0)), ([1; 16], Some(0)), ([2; 16], Some(1)), ([5; 16], Some(1)), ([6; 16], None)]
    {
        assert_eq!(index.find(&id), row_group);
    }
    assert_eq!(RowGroupIndex::parse(&index.to_json().unwrap()).unwrap(), index);
    let tempos = br#"{"rowGroups":["AAAAAAAAAAD/qNcWH2+fAQ=="]}"#;
    assert_eq!(RowGroupIndex::parse(tempos).unwrap().0[0][8..10], [0xff, 0xa8]);
    for bad in [&b""[..], b"7", br#"{"rowGroups":["AAAA"]}"#, br#"{"rowGroups":["?"]}"#] {
        assert!(RowGroupIndex::parse(bad).is_err());
    }
    assert_eq!(RowGroupIndex::parse(br#"{"rowGroups":null}"#).unwrap().0.len(), 0);
}
