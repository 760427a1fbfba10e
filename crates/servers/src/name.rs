//! Public names of models: lower case, no path, quantisation apart.

use idlewatt_protocol::limits::MAX_NAME;

/// What a file or a server's name for a model says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublicName {
    pub(crate) model: String,
    pub(crate) quantisation: Option<String>,
    /// Whether it names one shard of several.
    pub(crate) sharded: bool,
}

impl PublicName {
    /// Reads a path, a Hugging Face id, an Ollama name or an alias.
    pub(crate) fn of(name: &str) -> Self {
        let last = name.rsplit(['/', '\\']).find(|part| !part.is_empty()).unwrap_or("model");
        let stem = strip_suffix_ignoring_case(last, ".gguf").unwrap_or(last);
        let (stem, sharded) = match strip_shard(stem) {
            Some(stem) => (stem, true),
            None => (stem, false),
        };
        let stem = strip_suffix_ignoring_case(stem, ":latest").unwrap_or(stem);
        // A GGUF name ends in its quantisation: `Name.Q4_1`, `name-q4_k_m`, `name-UD-Q4_K_XL`, `name:q8_0`.
        let quantised = stem
            .char_indices()
            .filter(|(_, c)| matches!(c, '.' | '-' | ':' | '_'))
            .map(|(at, _)| (&stem[..at], &stem[at + 1..]))
            .find(|(before, after)| !before.is_empty() && is_quantisation(after));
        let (model, quantisation) = match quantised {
            Some((before, after)) => (before, Some(tidy(after))),
            None => (stem, None),
        };
        let model = strip_suffix_ignoring_case(model, "-ud").unwrap_or(model);
        Self { model: tidy(model), quantisation, sharded }
    }
}

/// Lower case, and nothing that a name in a request or a URL may not hold.
pub(crate) fn tidy(name: &str) -> String {
    let mut tidied = String::with_capacity(name.len());
    for c in name.chars() {
        let allowed = c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '+');
        let c = if allowed { c } else { '-' };
        tidied.extend(c.to_lowercase());
        if tidied.len() >= MAX_NAME - 4 {
            break;
        }
    }
    let trimmed = tidied.trim_matches('-');
    if trimmed.is_empty() { "model".to_owned() } else { trimmed.to_owned() }
}

/// `Q4_1`, `Q4_K_M`, `IQ2_XXS`, `TQ1_0`, `F16`, `BF16`, `FP8`, `MXFP4`, in any case.
fn is_quantisation(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let rest = ["iq", "tq", "q"].iter().find_map(|prefix| text.strip_prefix(prefix));
    if let Some(rest) = rest {
        let mut parts = rest.split('_');
        return parts.next().is_some_and(|bits| bits.len() == 1 && bits.bytes().all(|b| b.is_ascii_digit()))
            && parts.all(|part| {
                matches!(part, "0" | "1" | "2" | "3" | "k" | "s" | "m" | "l" | "xl" | "xs" | "xxs" | "nl")
            });
    }
    matches!(text.as_str(), "f16" | "bf16" | "f32" | "fp16" | "fp8" | "mxfp4" | "nvfp4" | "mxfp4_moe")
}

/// `name-00001-of-00003`.
fn strip_shard(stem: &str) -> Option<&str> {
    let (before, count) = stem.rsplit_once("-of-")?;
    let (name, number) = before.rsplit_once('-')?;
    let digits = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    (digits(count) && digits(number)).then_some(name)
}

fn strip_suffix_ignoring_case<'a>(text: &'a str, suffix: &str) -> Option<&'a str> {
    let at = text.len().checked_sub(suffix.len())?;
    text.get(at..).filter(|end| end.eq_ignore_ascii_case(suffix))?;
    text.get(..at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> (String, Option<String>) {
        let it = PublicName::of(name);
        (it.model, it.quantisation)
    }

    fn pair(model: &str, quantisation: &str) -> (String, Option<String>) {
        (model.to_owned(), (!quantisation.is_empty()).then(|| quantisation.to_owned()))
    }

    #[test]
    fn a_gguf_file_names_model_and_quantisation() {
        assert_eq!(
            of("/home/me/models/SmolLM2-135M-Instruct.Q4_1.gguf"),
            pair("smollm2-135m-instruct", "q4_1")
        );
        assert_eq!(of(r"C:\Models\Qwen3-8B-IQ2_XXS.GGUF"), pair("qwen3-8b", "iq2_xxs"));
        assert_eq!(of("gemma-3-4b-it-UD-Q4_K_XL.gguf"), pair("gemma-3-4b-it", "q4_k_xl"));
        assert_eq!(of("gpt-oss-20b-mxfp4.gguf"), pair("gpt-oss-20b", "mxfp4"));
        assert_eq!(
            of("Llama-3.3-70B-Instruct-Q8_0-00001-of-00003.gguf"),
            pair("llama-3.3-70b-instruct", "q8_0")
        );
        assert!(PublicName::of("x-Q8_0-00001-of-00003.gguf").sharded);
    }

    #[test]
    fn ids_and_tags_become_plain_names() {
        assert_eq!(of("mistralai/Mistral-7B-Instruct-v0.3"), pair("mistral-7b-instruct-v0.3", ""));
        assert_eq!(of("llama3.2:latest"), pair("llama3.2", ""));
        assert_eq!(of("qwen3:8b-q4_K_M"), pair("qwen3-8b", "q4_k_m"));
        assert_eq!(of("my model @home"), pair("my-model--home", ""));
        assert_eq!(of("///"), pair("model", ""));
        assert_eq!(of("Q4_1"), pair("q4_1", ""));
    }

    #[test]
    fn no_name_is_ever_refused_in_an_offer() {
        for name in ["a/b\\c@d e\u{7}", "ÜBER modell", &"long".repeat(500), "", "@@@"] {
            let model = PublicName::of(name).model;
            assert!(!model.is_empty() && model.len() <= MAX_NAME, "{model}");
            assert!(!model.chars().any(|c| c.is_control() || c.is_whitespace() || "/\\@".contains(c)));
        }
    }
}
