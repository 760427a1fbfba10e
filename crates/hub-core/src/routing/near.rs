//! Names close to a misspelt one.

/// Suggestions at most.
const MOST: usize = 3;

/// The names nearest to `wanted`, best first: those that contain it, or are a few edits away.
pub(super) fn names<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let wanted = wanted.to_lowercase();
    let furthest = 2 + wanted.chars().count() / 3;
    let mut near: Vec<(usize, &str)> = names
        .filter_map(|name| {
            let bare = name.split(':').next().unwrap_or(name);
            let distance = edits(&wanted, name).min(edits(&wanted, bare));
            let contains = wanted.len() >= 3 && (name.contains(&wanted) || wanted.contains(bare));
            (contains || distance <= furthest).then_some((if contains { 0 } else { distance }, name))
        })
        .collect();
    near.sort_unstable();
    near.into_iter().take(MOST).map(|(_, name)| name.to_owned()).collect()
}

/// Levenshtein distance. Names are at most 256 bytes, so the table stays small.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().take(256).enumerate() {
        let mut corner = i;
        let mut left = i + 1;
        for (to, cell) in b.iter().zip(row.iter_mut().skip(1)) {
            let best = (corner + usize::from(from != *to)).min(left + 1).min(*cell + 1);
            corner = std::mem::replace(cell, best);
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_and_shortened_names_find_their_models() {
        let known = ["smollm2-135m-instruct:q4_1", "qwen3-30b:q4_k_m", "nomic-embed"];
        let near = |wanted| names(wanted, known.into_iter());
        assert_eq!(near("smolm2-135m-instruct"), ["smollm2-135m-instruct:q4_1"]);
        assert_eq!(near("qwen3"), ["qwen3-30b:q4_k_m"]);
        assert_eq!(near("qwen3-30b:q8_0"), ["qwen3-30b:q4_k_m"]);
        assert!(near("gpt-4o").is_empty());
    }

    #[test]
    fn edits_are_counted() {
        assert_eq!((edits("", "abc"), edits("kitten", "sitting"), edits("a", "a")), (3, 3, 0));
    }
}
