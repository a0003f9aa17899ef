//! What a commit carries beside its done map.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use drakkar_core::{
    DoneMap, Offset,
    done_map::{DEFAULT_LIMIT, Extras, Fits, Foreign, Noted},
    flood::{FloodMark, FloodReason},
};
use proptest::prelude::*;

fn mark() -> impl Strategy<Value = FloodMark> {
    let held = prop_oneof![
        Just(None),
        Just(Some(FloodReason::Consecutive)),
        Just(Some(FloodReason::Ratio))
    ];
    (held, any::<u32>(), 0..=1_000_u32, 0..=1_000_u32).prop_map(
        |(held, consecutive, recent, recent_dead)| FloodMark {
            held,
            consecutive,
            recent,
            recent_dead,
        },
    )
}

fn tripped() -> Extras {
    let held = Some(FloodReason::Consecutive);
    Extras { flood: FloodMark { held, consecutive: 100, recent: 300, recent_dead: 101 } }
}

fn text(body: &[u8]) -> String {
    format!("drk2{}", BASE64.encode(body))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_noted_is_what_is_read_beside_what_is_settled(
        next in any::<i64>(),
        steps in prop::collection::vec(1..50_i64, 0..200),
        flood in mark(),
    ) {
        let mut offset = next;
        let settled: Vec<Offset> = steps
            .iter()
            .map_while(|step| {
                offset = offset.checked_add(*step)?;
                Some(Offset(offset))
            })
            .collect();
        let extras = Extras { flood };
        let encoded = Noted::encode(Offset(next), settled.clone(), &extras, DEFAULT_LIMIT);
        let read = Noted::decode(Offset(next), &encoded.metadata).unwrap();
        prop_assert_eq!(read.extras, extras);
        prop_assert_eq!(read.done.iter().collect::<Vec<_>>(), settled);
    }

    #[test]
    fn the_limit_holds_and_the_extras_come_before_the_offsets(
        count in 0..4_000_i64,
        limit in 0..500_usize,
    ) {
        let settled = (0..count).map(|n| Offset(8 + n * 7));
        let encoded = Noted::encode(Offset(7), settled, &tripped(), limit);
        prop_assert!(encoded.metadata.len() <= limit);
        let read = Noted::decode(Offset(7), &encoded.metadata).unwrap();
        if 40 <= limit {
            prop_assert_eq!(read.extras, tripped());
        }
        let left_out = count.cast_unsigned() - read.done.len();
        prop_assert_eq!(encoded.fits == Fits::Over { left_out }, 0 < left_out);
    }

    #[test]
    fn a_damaged_text_is_an_error_or_claims_nothing_below_the_position(
        next in 0..1_000_i64,
        body in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        if let Ok(noted) = Noted::decode(Offset(next), &text(&body)) {
            prop_assert!(noted.done.iter().take(1_000).all(|offset| next <= offset.0));
        }
    }
}

#[test]
fn where_there_is_nothing_to_note_the_text_is_one_that_older_releases_read() {
    let plain = Noted::encode(Offset(7), [Offset(9)], &Extras::default(), DEFAULT_LIMIT);
    assert_eq!(plain, DoneMap::encode(Offset(7), [Offset(9)], DEFAULT_LIMIT));
    assert!(plain.metadata.starts_with("drk1"));
    let nothing = Noted::encode(Offset(7), [], &Extras::default(), DEFAULT_LIMIT);
    assert_eq!(nothing.metadata, "");
}

#[test]
fn the_text_does_not_change_between_releases() {
    let encoded = Noted::encode(Offset(1_000), [Offset(1_002)], &tripped(), DEFAULT_LIMIT);
    assert_eq!(encoded.metadata, "drk2BwEFAWSsAmUA6AcCAA");
    let read = Noted::decode(Offset(1_000), &encoded.metadata).unwrap();
    assert_eq!(read.extras, tripped());
    assert!(read.done.contains(Offset(1_002)));
}

#[test]
fn extras_of_a_later_release_are_skipped_and_the_known_ones_read() {
    let unknown = [9, 3, 1, 2, 3];
    let longer = [1, 5, 2, 4, 6, 5, 77];
    let entries: Vec<u8> = [&unknown[..], &longer].concat();
    let body = [&[u8::try_from(entries.len()).unwrap()], &entries[..], &[0, 7, 1, 0]].concat();
    let noted = Noted::decode(Offset(7), &text(&body)).unwrap();
    let held = Some(FloodReason::Ratio);
    assert_eq!(noted.extras.flood, FloodMark { held, consecutive: 4, recent: 6, recent_dead: 5 });
    assert_eq!(noted.done.iter().collect::<Vec<_>>(), [Offset(8)]);
}

#[test]
fn extras_for_another_position_are_refused_with_the_map() {
    let encoded = Noted::encode(Offset(7), [], &tripped(), DEFAULT_LIMIT);
    let refused = Noted::decode(Offset(8), &encoded.metadata);
    assert_eq!(refused, Err(Foreign::OtherPosition(Offset(7))));
}

#[test]
fn an_entry_that_is_cut_off_is_damage() {
    for body in [&[3, 1, 9, 0][..], &[2, 1, 0, 0, 7], &[9, 1]] {
        let refused = Noted::decode(Offset(7), &text(body));
        assert!(matches!(refused, Err(Foreign::Damaged(_))), "{body:?}: {refused:?}");
    }
}
