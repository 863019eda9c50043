use proptest::prelude::*;

use super::*;

const GOLDEN_3: [u32; 1] = [0x7aed_7ac8];
const GOLDEN_200_000: [u32; 3] = [0x2b1a_29fb, 0x0802_42d5, 0x3cd3_e3ba];

fn ids(n: u64) -> Vec<[u8; 16]> {
    (0..n)
        .map(|i| {
            let x = i.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1);
            let mut id = [0; 16];
            id[..8].copy_from_slice(&x.to_le_bytes());
            id[8..].copy_from_slice(&x.wrapping_mul(31).to_le_bytes());
            id
        })
        .collect()
}

/// Checksums of the files that Tempo 3.0 writes for the same ids.
#[test]
fn files_are_tempos() {
    for (n, checksums) in [(3, &GOLDEN_3[..]), (200_000, &GOLDEN_200_000[..])] {
        let files = build(&ids(n));
        let ours: Vec<u32> = files
            .iter()
            .map(|file| {
                let mut crc = flate2::Crc::new();
                crc.update(file);
                crc.sum()
            })
            .collect();
        assert_eq!(ours, checksums);
    }
}

#[test]
fn what_was_added_is_found() {
    let all = ids(50_000);
    let files = build(&all[..40_000]);
    let found = |id: &[u8; 16]| test(&files[shard_of(id, files.len() as u32)], id).unwrap();
    assert!(all[..40_000].iter().all(found));
    let wrong = all[40_000..].iter().filter(|id| found(id)).count();
    assert!(wrong < 200, "{wrong} of 10000");
}

#[test]
fn damaged_files_are_refused() {
    let file = build(&ids(1)).remove(0);
    for bad in [&file[..0], &file[..23], &file[..24], &file[..file.len() - 8], &[0xff; 64][..], &[0; 64][..]]
    {
        assert!(test(bad, &[1; 16]).is_err());
    }
}

proptest! {
    #[test]
    fn any_file_never_panics(file in proptest::collection::vec(any::<u8>(), 0..80), id in any::<[u8; 16]>()) {
        let _ = test(&file, &id);
    }
}
