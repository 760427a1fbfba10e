//! Model files from anywhere: whatever is in them, reading them ends soon, takes little memory, and says what is wrong.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use idlewatt_servers::gguf::{GgufError, Header, read_header};
use idlewatt_servers::plan::{CardRoom, Chosen, Room, plan};
use proptest::prelude::*;

/// Counts what the thread under test holds.
struct Counting;

thread_local! {
    /// Now, and at most, bytes.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

fn note(bytes: isize) {
    // A thread that is ending has nothing to count with any more.
    let _ = HELD.try_with(|it| {
        let (held, most) = it.get();
        it.set((held + bytes, most.max(held + bytes)));
    });
}

#[expect(unsafe_code, reason = "an allocator that counts is one")]
// SAFETY: everything is the system allocator's; this only counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(isize::try_from(layout.size()).unwrap_or(isize::MAX));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        note(-isize::try_from(layout.size()).unwrap_or(isize::MAX));
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Reads it and checks what that took.
fn read(path: &Path) -> Result<Header, GgufError> {
    let begun = Instant::now();
    HELD.set((0, 0));
    let header = read_header(path);
    let most = HELD.get().1;
    assert!(most < 4 << 20, "{} took {most} bytes", path.display());
    assert!(begun.elapsed() < Duration::from_secs(10), "{} took {:?}", path.display(), begun.elapsed());
    header
}

fn corpus() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|it| it.path()).collect();
    files.sort();
    assert!(files.len() > 30, "the corpus is there");
    files
}

/// Whatever a header claims, a plan for it is made or refused, and stays inside the room.
fn planned(header: &Header) -> String {
    let card = CardRoom { id: "GPU-1".into(), allowed: 8_000_000_000 };
    let room = Room { cards: vec![card], memory: Some(16_000_000_000), unified: false };
    match plan(header, Chosen::default(), &room) {
        Ok(plan) => {
            assert!(plan.vram() <= 8_000_000_000 && plan.memory <= 16_000_000_000, "{plan:?}");
            plan.to_string()
        }
        Err(error) => error.to_string(),
    }
}

#[test]
fn each_damaged_file_is_told_by_what_is_wrong_with_it() {
    let told: Vec<String> = corpus()
        .iter()
        .map(|path| {
            let said = match read(path) {
                Ok(header) => format!("{:?}, {}", header.purpose, planned(&header)),
                Err(error) => error.to_string(),
            };
            format!("{}: {said}", path.file_stem().unwrap().to_string_lossy())
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"));
}

#[derive(Clone, Debug)]
enum Damage {
    Cut(usize),
    Byte(usize, u8),
    Number(usize, u64),
    Twice(usize, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let number = prop_oneof![
        Just(0),
        Just(u64::MAX),
        Just(1 << 63),
        Just(u64::from(u32::MAX)),
        Just(1 << 40),
        0..100_u64,
        any::<u64>(),
    ];
    prop_oneof![
        any::<usize>().prop_map(Damage::Cut),
        (any::<usize>(), any::<u8>()).prop_map(|(at, to)| Damage::Byte(at, to)),
        (any::<usize>(), number).prop_map(|(at, to)| Damage::Number(at, to)),
        (any::<usize>(), 1..64_usize).prop_map(|(at, length)| Damage::Twice(at, length)),
    ]
}

fn damaged(bytes: &mut Vec<u8>, damage: &Damage) {
    if bytes.is_empty() {
        return;
    }
    let length = bytes.len();
    match *damage {
        Damage::Cut(at) => bytes.truncate(at % length),
        Damage::Byte(at, to) => bytes[at % length] = to,
        Damage::Number(at, to) => {
            let at = at % length;
            let end = (at + 8).min(length);
            bytes[at..end].copy_from_slice(&to.to_le_bytes()[..end - at]);
        }
        Damage::Twice(at, count) => {
            let at = at % length;
            let part = bytes[at..(at + count).min(length)].to_vec();
            bytes.splice(at..at, part);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_damage_makes_reading_panic_hang_or_take_memory(
        which in any::<prop::sample::Index>(),
        damages in prop::collection::vec(damage(), 1..6),
    ) {
        let mut bytes = std::fs::read(which.get(&corpus())).unwrap();
        damages.iter().for_each(|it| damaged(&mut bytes, it));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        if let Ok(header) = read(file.path()) {
            prop_assert!(header.layer_bytes.iter().sum::<u64>() <= header.size);
            planned(&header);
        }
    }
}
