//! The types of weights, as llama.cpp numbers and stores them (`gguf-py/gguf/constants.py`), and what it knows of
//! architectures that their files do not say.

/// Numbers in a block of this `ggml_type`, and the bytes that the block takes.
pub(super) fn block(kind: u32) -> Option<(u64, u64)> {
    Some(match kind {
        0 | 26 => (1, 4),
        1 | 25 | 30 => (1, 2),
        24 => (1, 1),
        27 | 28 => (1, 8),
        2 | 20 => (32, 18),
        3 => (32, 20),
        6 => (32, 22),
        7 => (32, 24),
        8 => (32, 34),
        9 => (32, 40),
        39 => (32, 17),
        40 => (64, 36),
        41 => (128, 18),
        10 => (256, 84),
        11 | 21 => (256, 110),
        12 => (256, 144),
        13 => (256, 176),
        14 => (256, 210),
        15 => (256, 292),
        16 => (256, 66),
        17 => (256, 74),
        18 => (256, 98),
        19 => (256, 50),
        22 => (256, 82),
        23 => (256, 136),
        29 => (256, 56),
        34 => (256, 54),
        35 => (256, 66),
        _ => return None,
    })
}

/// The name of a `general.file_type`.
pub(super) fn file_type(number: u32) -> Option<&'static str> {
    Some(match number {
        0 => "F32",
        1 => "F16",
        2 => "Q4_0",
        3 => "Q4_1",
        7 => "Q8_0",
        8 => "Q5_0",
        9 => "Q5_1",
        10 => "Q2_K",
        11 => "Q3_K_S",
        12 => "Q3_K_M",
        13 => "Q3_K_L",
        14 => "Q4_K_S",
        15 => "Q4_K_M",
        16 => "Q5_K_S",
        17 => "Q5_K_M",
        18 => "Q6_K",
        19 => "IQ2_XXS",
        20 => "IQ2_XS",
        21 => "Q2_K_S",
        22 => "IQ3_XS",
        23 => "IQ3_XXS",
        24 => "IQ1_S",
        25 => "IQ4_NL",
        26 => "IQ3_S",
        27 => "IQ3_M",
        28 => "IQ2_S",
        29 => "IQ2_M",
        30 => "IQ4_XS",
        31 => "IQ1_M",
        32 => "BF16",
        36 => "TQ1_0",
        37 => "TQ2_0",
        38 => "MXFP4",
        39 => "NVFP4",
        40 => "Q1_0",
        _ => return None,
    })
}

/// Whether a layer of this architecture looks back over its sliding window only, where the file does not say which do:
/// then every so many layers one looks back over everything (`set_swa_pattern` in llama.cpp's models). An architecture
/// that is not known here is taken to look back over everything, which takes more memory, never less.
pub(super) fn slides(architecture: &str, layer: u32) -> bool {
    match architecture {
        "gemma2" | "gpt-oss" => every(2, layer),
        "cohere2" => every(4, layer),
        "gemma3n" => every(5, layer),
        "gemma3" => every(6, layer),
        _ => false,
    }
}

/// Of `period` layers all but the last slide; with a period of 0 all do.
pub(super) fn every(period: u32, layer: u32) -> bool {
    period == 0 || layer % period < period - 1
}
