//! The done map beside the plain set of offsets it stands for.

use std::collections::BTreeSet;

use drakkar_core::{
    DoneMap, Offset,
    done_map::{DEFAULT_LIMIT, Encoded, Extras, Fits, Foreign, Noted},
    flood::FloodMark,
    watermark::Watermark,
};
use proptest::prelude::*;

/// Runs of settled offsets with gaps between them; from dense to sparse.
fn settled() -> impl Strategy<Value = BTreeSet<i64>> {
    let gap = prop_oneof![3 => 1..4_u64, 1 => 1..100_u64, 1 => 1..1_000_000_000_u64];
    let len = prop_oneof![3 => 1..4_i64, 1 => 1..200_i64];
    prop::collection::vec((gap, len), 0..150).prop_map(|runs| {
        let mut from = -1;
        let mut set = BTreeSet::new();
        for (gap, len) in runs {
            let first = from + gap.cast_signed();
            set.extend(first..first + len);
            from = first + len;
        }
        set
    })
}

fn position() -> impl Strategy<Value = i64> {
    prop_oneof![Just(0), 0..1_000_000_i64, (i64::MAX / 2)..(i64::MAX / 2 + 1_000)]
}

fn shifted(set: &BTreeSet<i64>, next: i64) -> Vec<Offset> {
    set.iter().map(|relative| Offset(next + relative)).collect()
}

fn encode(next: i64, settled: &[Offset], limit: usize) -> Encoded {
    DoneMap::encode(Offset(next), settled.iter().copied(), limit)
}

fn contents(next: i64, metadata: &str) -> Result<Vec<Offset>, Foreign> {
    DoneMap::decode(Offset(next), metadata).map(|map| map.iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_written_is_what_is_read(next in position(), set in settled()) {
        let settled = shifted(&set, next);
        let encoded = encode(next, &settled, 32_767);
        let fits_all = matches!(encoded.fits, Fits::All { .. });
        prop_assert!(fits_all, "{:?}", encoded.fits);
        prop_assert_eq!(encoded.metadata.is_empty(), settled.is_empty());
        let map = DoneMap::decode(Offset(next), &encoded.metadata).unwrap();
        prop_assert_eq!(map.iter().collect::<Vec<_>>(), settled.clone());
        prop_assert_eq!(map.len(), settled.len() as u64);
        prop_assert_eq!(map.is_empty(), settled.is_empty());
        for offset in settled {
            prop_assert!(map.contains(offset));
            for neighbour in [offset.0 - 1, offset.0 + 1] {
                prop_assert_eq!(map.contains(Offset(neighbour)), set.contains(&(neighbour - next)));
            }
        }
    }

    #[test]
    fn over_the_limit_the_lowest_offsets_are_kept_and_the_rest_is_counted(
        next in position(),
        set in settled(),
        limit in 0..300_usize,
    ) {
        let settled = shifted(&set, next);
        let Encoded { metadata, fits } = encode(next, &settled, limit);
        prop_assert!(metadata.len() <= limit, "{} characters", metadata.len());
        let kept = contents(next, &metadata).unwrap();
        prop_assert!(settled.starts_with(&kept), "not the lowest offsets");
        let left_out = (settled.len() - kept.len()) as u64;
        match fits {
            Fits::All { percent } => {
                prop_assert_eq!(left_out, 0);
                prop_assert_eq!(percent, metadata.len() * 100 / limit.max(1));
            }
            Fits::Over { left_out: counted } => {
                prop_assert!(0 < left_out);
                prop_assert_eq!(counted, left_out);
            }
        }
    }

    #[test]
    fn a_text_that_is_shortened_claims_the_lowest_of_what_it_claimed(
        next in position(),
        set in settled(),
        consecutive in 0..3_u32,
        limit in 0..500_usize,
    ) {
        let extras = Extras { flood: FloodMark { consecutive, ..FloodMark::default() } };
        let full = Noted::encode(Offset(next), shifted(&set, next), &extras, 32_767).metadata;
        let short = Noted::shorten(Offset(next), &full, limit);
        prop_assert!(short.len() <= limit);
        let read = Noted::decode(Offset(next), &short).unwrap();
        let kept: Vec<Offset> = read.done.iter().collect();
        prop_assert_eq!(&kept[..], &shifted(&set, next)[..kept.len()]);
        if 100 < limit {
            prop_assert_eq!(read.extras, extras, "a hold of the partition is not forgotten");
        }
    }

    #[test]
    fn a_larger_limit_never_keeps_less(set in settled(), limit in 0..400_usize) {
        let settled = shifted(&set, 5);
        let kept = |limit| contents(5, &encode(5, &settled, limit).metadata).unwrap().len();
        prop_assert!(kept(limit) <= kept(limit + 1));
    }

    #[test]
    fn what_a_watermark_holds_survives_a_restart_and_nothing_else_is_claimed(
        gaps in prop::collection::vec((1..5_i64, any::<bool>()), 1..300),
    ) {
        let mut mark = Watermark::default();
        let mut offset = 40;
        for &(gap, _) in &gaps {
            offset += gap;
            prop_assert!(mark.begin(Offset(offset)));
        }
        let last = offset;
        offset = 40;
        let mut settled = BTreeSet::new();
        for &(gap, ends) in &gaps {
            offset += gap;
            if ends {
                mark.settle(Offset(offset));
                settled.insert(Offset(offset));
            }
        }
        let next = mark.position().unwrap_or(Offset(41));
        let encoded = DoneMap::encode(next, mark.settled_above(), DEFAULT_LIMIT);
        let map = DoneMap::decode(next, &encoded.metadata).unwrap();
        for offset in (next.0..=last + 10).map(Offset) {
            prop_assert_eq!(map.contains(offset), settled.contains(&offset), "{}", offset);
        }
    }

    #[test]
    fn offsets_below_the_position_or_out_of_order_never_make_a_false_claim(
        next in 0..60_i64,
        offsets in prop::collection::vec(0..100_i64, 0..60),
    ) {
        let offsets: Vec<Offset> = offsets.into_iter().map(Offset).collect();
        let kept = contents(next, &encode(next, &offsets, DEFAULT_LIMIT).metadata).unwrap();
        prop_assert!(kept.is_sorted_by(|a, b| a < b));
        prop_assert!(kept.iter().all(|offset| next <= offset.0 && offsets.contains(offset)));
    }

    #[test]
    fn garbage_is_an_error_or_a_map_above_the_position(
        next in any::<i64>(),
        prefix in prop_oneof![Just("drk1"), Just("drk"), Just("")],
        text in "[A-Za-z0-9_-]{0,60}|.{0,20}",
    ) {
        if let Ok(map) = DoneMap::decode(Offset(next), &format!("{prefix}{text}")) {
            prop_assert!(map.iter().take(1_000).all(|offset| next <= offset.0));
        }
    }

    /// Random text seldom names the right position, so this damages what was written for it.
    #[test]
    fn a_damaged_map_is_an_error_or_a_map_above_the_position(
        next in prop_oneof![0..100_i64, (i64::MAX - 1_000)..i64::MAX],
        kind in 0..3_u8,
        tail in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut body = vec![kind];
        let mut number = next.cast_unsigned();
        while 0x7F < number {
            body.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        body.push(number.to_le_bytes()[0]);
        body.extend(tail);
        let text = format!("drk1{}", base64(&body));
        match DoneMap::decode(Offset(next), &text) {
            Ok(map) => {
                prop_assert!(map.iter().take(1_000).all(|offset| next <= offset.0));
                prop_assert!(map.iter().take(1_000).all(|offset| map.contains(offset)));
                prop_assert_eq!(map.is_empty(), map.iter().next().is_none());
            }
            Err(error) => prop_assert!(matches!(error, Foreign::Damaged(_)), "{}", error),
        }
    }

    #[test]
    fn a_map_that_was_cut_off_claims_nothing_new(set in settled(), cut in any::<prop::sample::Index>()) {
        let settled = shifted(&set, 9);
        let metadata = encode(9, &settled, 32_767).metadata;
        if !metadata.is_empty() {
            let cut = &metadata[..cut.index(metadata.len())];
            if let Ok(kept) = contents(9, cut) {
                prop_assert!(kept.iter().all(|offset| settled.contains(offset)));
            }
        }
    }
}

/// The alphabet of RFC 4648 §5, bit by bit.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits: Vec<u8> =
        bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let sextet = |chunk: &[u8]| (0..6).fold(0, |n, bit| n << 1 | chunk.get(bit).unwrap_or(&0));
    bits.chunks(6).map(|chunk| char::from(ALPHABET[usize::from(sextet(chunk))])).collect()
}

#[track_caller]
fn refuse(next: i64, metadata: &str, expected: Foreign) {
    assert_eq!(DoneMap::decode(Offset(next), metadata), Err(expected), "{metadata:?}");
}

#[test]
fn metadata_of_others_is_refused_by_name() {
    refuse(0, "lag=3", Foreign::NotOurs);
    refuse(0, "drkkar", Foreign::NotOurs);
    refuse(0, "drk3AAA", Foreign::OtherVersion);
    refuse(0, "drk1", Foreign::Damaged("it is empty"));
    refuse(0, "drk1 !", Foreign::Damaged("no base64"));
    refuse(0, "drk1é", Foreign::Damaged("no base64"));
    refuse(0, &format!("drk1{}", "A".repeat(40_000)), Foreign::Damaged("it is too long"));
    assert_eq!(DoneMap::decode(Offset(0), ""), Ok(DoneMap::default()));
}

#[test]
fn a_map_that_names_more_than_anybody_settles_is_refused_because_it_would_be_walked_for_ever() {
    let too_many = Foreign::Damaged("it names more offsets than a worker keeps");
    // A run from 8 on, of which all numbers but the length are small.
    let run = |more: u64| {
        let mut body = vec![0, 7, 1];
        let mut rest = more;
        while 0x7F < rest {
            body.push(u8::try_from(rest & 0x7F).unwrap() | 0x80);
            rest >>= 7;
        }
        body.push(u8::try_from(rest).unwrap());
        body
    };
    for more in [1_u64 << 62, 1 << 40, DoneMap::MOST] {
        refuse(7, &format!("drk1{}", base64(&run(more))), too_many);
    }
    let most = format!("drk1{}", base64(&run(DoneMap::MOST - 1)));
    assert_eq!(DoneMap::decode(Offset(7), &most).map(|map| map.len()), Ok(DoneMap::MOST));
    // Many runs are no way around it.
    let mut two = run(DoneMap::MOST - 1);
    two.extend([1, 0]);
    refuse(7, &format!("drk1{}", base64(&two)), too_many);
}

#[test]
fn a_map_of_another_position_is_refused_because_it_would_skip_messages() {
    let metadata = encode(10, &[Offset(12)], DEFAULT_LIMIT).metadata;
    refuse(11, &metadata, Foreign::OtherPosition(Offset(10)));
    assert_eq!(contents(10, &metadata), Ok(vec![Offset(12)]));
}

#[test]
fn the_text_does_not_change_between_releases() {
    let runs = encode(1_000, &[1_001, 1_002, 5_000].map(Offset), DEFAULT_LIMIT);
    assert_eq!(runs.metadata, "drk1AOgHAQGdHwA");
    let every_third: Vec<Offset> = (0..20).map(|n| Offset(1_001 + 3 * n)).collect();
    assert_eq!(encode(1_000, &every_third, DEFAULT_LIMIT).metadata, "drk1AegHAUmSJEmSJEkC");
}

#[test]
fn a_hundred_thousand_in_one_run_take_a_dozen_characters() {
    let encoded = DoneMap::encode(Offset(7), (8..100_008).map(Offset), DEFAULT_LIMIT);
    assert_eq!(encoded.fits, Fits::All { percent: 0 });
    assert!(encoded.metadata.len() < 16, "{}", encoded.metadata);
    let map = DoneMap::decode(Offset(7), &encoded.metadata).unwrap();
    assert_eq!(map.len(), 100_000);
    assert!(map.contains(Offset(8)) && map.contains(Offset(100_007)));
    assert!(!map.contains(Offset(7)) && !map.contains(Offset(100_008)));
}

#[test]
fn every_other_offset_costs_two_bits_and_the_default_limit_holds_twelve_thousand() {
    let every_other = |count: i64| (0..count).map(|n| Offset(1 + 2 * n));
    let fits = |count| DoneMap::encode(Offset(0), every_other(count), DEFAULT_LIMIT).fits;
    assert_eq!(fits(12_000), Fits::All { percent: 97 });
    let Fits::Over { left_out } = fits(100_000) else { panic!("200 000 offsets cannot fit") };
    assert!(left_out < 88_000, "{left_out}");
}

#[test]
fn the_ends_of_the_number_range_neither_panic_nor_wrap() {
    let ends = [Offset(0), Offset(i64::MAX - 1), Offset(i64::MAX)];
    for next in [0, i64::MIN] {
        let encoded = encode(next, &ends, DEFAULT_LIMIT);
        assert_eq!(contents(next, &encoded.metadata), Ok(ends.to_vec()));
    }
    let last = encode(i64::MAX, &[Offset(i64::MAX)], DEFAULT_LIMIT);
    assert_eq!(contents(i64::MAX, &last.metadata), Ok(vec![Offset(i64::MAX)]));
}
