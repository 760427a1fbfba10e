//! How a model of one's own is loaded into the memory that may be used: layers on the cards, context and slots. Pure: the
//! header and the room come from elsewhere.
//!
//! What a llama-server takes is its weights, its cache of keys and values (16-bit, one for each slot) and what it computes
//! in. The first two are counted exactly; the third is an upper estimate, so that what is said to fit does fit
//! (docs/design/managed.md has the figures beside llama.cpp's own).

use std::fmt;

use crate::gguf::Header;

/// Tokens computed at once: llama-server's `--ubatch-size`.
const BATCH: u64 = 512;
/// Keys and values are kept in steps of this many tokens.
const CELLS: u64 = 256;
/// What a driver takes on a card for a program that computes there, before any of it is the model's. Between 200 and 450
/// MB is usual with CUDA.
pub const DRIVER: u64 = 512 << 20;
/// What a llama-server takes in main memory beside weights, keys and values.
const PROCESS: u64 = 128 << 20;
/// Context of a slot and number of slots, the first that fits is taken.
const SHAPES: [(u32, u32); 6] = [(8192, 4), (8192, 2), (4096, 2), (4096, 1), (2048, 1), (1024, 1)];
/// With a part of the layers on the processor, answers are slow: fewer at once.
const SLOW_SHAPES: [(u32, u32); 3] = [(4096, 2), (4096, 1), (2048, 1)];

/// The memory that may be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Cards, each with what may be used of it.
    pub cards: Vec<CardRoom>,
    /// Main memory that may be used, bytes; `None` where that is not known.
    pub memory: Option<u64>,
    /// The processor's memory is the card's too (Apple silicon): layers there cost no card of their own.
    pub unified: bool,
}

/// What may be used of one card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CardRoom {
    /// The driver's id.
    pub id: String,
    /// VRAM, bytes: what the card has, less what others use and what the host keeps.
    pub allowed: u64,
}

/// What the host chose; the rest is chosen here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// Context of one slot, tokens.
    pub context: Option<u32>,
    /// Requests at once.
    pub slots: Option<u32>,
    /// Layers on the cards, the output counting as one.
    pub gpu_layers: Option<u32>,
}

/// How a model is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Context of one slot, tokens.
    pub context: u32,
    /// Requests at once.
    pub slots: u32,
    /// Layers on the cards, the output counting as one.
    pub gpu_layers: u32,
    /// Layers that the model has, the output counting as one.
    pub of_layers: u32,
    /// Each card that is used, in order.
    pub cards: Vec<CardPlan>,
    /// Main memory that it takes, bytes.
    pub memory: u64,
}

/// What is loaded onto one card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CardPlan {
    /// The driver's id.
    pub id: String,
    /// Layers.
    pub layers: u32,
    /// VRAM that they take with all that goes with them, bytes.
    pub vram: u64,
}

/// A model that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoFit {
    /// Even on the processor, with the smallest context.
    #[error("does not fit: it takes {} of memory, {} may be used", Bytes(*.needs), Bytes(*.has))]
    Memory {
        /// What it takes, bytes.
        needs: u64,
        /// What there is, bytes.
        has: u64,
    },
    /// Not with what the host chose.
    #[error("does not fit as you chose: {layers} layers with {slots} × {} tokens take more than the {} of VRAM that may be used", grouped(*.context), Bytes(*.has))]
    AsChosen {
        /// `managed.gpu_layers`
        layers: u32,
        /// Slots.
        slots: u32,
        /// Context.
        context: u32,
        /// VRAM that may be used, bytes.
        has: u64,
    },
}

/// Chooses what the host has not: all layers on the cards if they fit with any of the usual shapes, else as many as fit,
/// else none.
///
/// # Errors
/// When it fits no way.
pub fn plan(header: &Header, chosen: Chosen, room: &Room) -> Result<Plan, NoFit> {
    let whole = header.layers.saturating_add(1);
    let shapes = |usual: &[(u32, u32)]| -> Vec<(u32, u32)> {
        let longest = header.context.unwrap_or(u32::MAX).max(256);
        let mut shapes: Vec<_> = usual
            .iter()
            .map(|(context, slots)| {
                (chosen.context.unwrap_or((*context).min(longest)), chosen.slots.unwrap_or(*slots))
            })
            .collect();
        shapes.dedup();
        shapes
    };
    let fits = |plan: Option<Plan>| plan.filter(|it| room.memory.is_none_or(|memory| it.memory <= memory));
    if room.unified {
        let all = chosen.gpu_layers.unwrap_or(whole);
        let mut found = shapes(&SHAPES).into_iter().map(|shape| on_processor(header, shape, all));
        return found
            .find_map(|it| fits(Some(it)))
            .ok_or_else(|| no_memory(header, &shapes(&SLOW_SHAPES), room));
    }
    if let Some(layers) = chosen.gpu_layers.filter(|it| *it > 0) {
        let layers = layers.min(whole);
        let mut found = shapes(&SHAPES).into_iter().map(|shape| on_cards(header, shape, layers, &room.cards));
        let (context, slots) = shapes(&SHAPES).pop().unwrap_or((0, 0));
        let has = total(room.cards.iter().map(|it| it.allowed));
        return found.find_map(fits).ok_or(NoFit::AsChosen { layers, slots, context, has });
    }
    let may = chosen.gpu_layers != Some(0) && !room.cards.is_empty();
    let all = || shapes(&SHAPES).into_iter().find_map(|it| fits(on_cards(header, it, whole, &room.cards)));
    let most = || {
        let tried =
            (1..whole).rev().flat_map(|layers| shapes(&SLOW_SHAPES).into_iter().map(move |it| (layers, it)));
        tried.into_iter().find_map(|(layers, it)| fits(on_cards(header, it, layers, &room.cards)))
    };
    let none = || shapes(&SLOW_SHAPES).into_iter().find_map(|it| fits(Some(on_processor(header, it, 0))));
    may.then(all)
        .flatten()
        .or_else(|| may.then(most).flatten())
        .or_else(none)
        .ok_or_else(|| no_memory(header, &shapes(&SLOW_SHAPES), room))
}

fn no_memory(header: &Header, shapes: &[(u32, u32)], room: &Room) -> NoFit {
    let least = shapes.last().map_or(0, |it| on_processor(header, *it, 0).memory);
    NoFit::Memory { needs: least, has: room.memory.unwrap_or(0) }
}

fn on_processor(header: &Header, (context, slots): (u32, u32), gpu_layers: u32) -> Plan {
    let caches = total((0..header.layers).map(|layer| cache(header, layer, context, slots)));
    let memory = total([header.size, caches, computing(header, context), PROCESS]);
    Plan { context, slots, gpu_layers, of_layers: header.layers + 1, cards: Vec::new(), memory }
}

/// The last `count` layers on the cards: each card takes what it can, the roomiest first.
fn on_cards(header: &Header, shape: (u32, u32), count: u32, cards: &[CardRoom]) -> Option<Plan> {
    let (context, slots) = shape;
    let whole = header.layers + 1;
    let computing = computing(header, context);
    let mut cards: Vec<&CardRoom> = cards.iter().collect();
    cards.sort_by_key(|it| std::cmp::Reverse(it.allowed));
    let layer = |it: u32| weights(header, it).saturating_add(cache(header, it, context, slots));
    // Of a part of the layers, older llama.cpp leaves the output in main memory and takes one layer more.
    let before = (whole - count).checked_sub(1).map_or(0, layer);
    let size = |it: u32| if it == header.layers { header.output_bytes.max(before) } else { layer(it) };
    let mut left = (whole - count..whole).peekable();
    let mut used = Vec::new();
    for card in cards {
        let mut it = CardPlan { id: card.id.clone(), layers: 0, vram: DRIVER.saturating_add(computing) };
        while let Some(vram) = left.peek().map(|layer| it.vram.saturating_add(size(*layer))) {
            if vram > card.allowed {
                break;
            }
            it.vram = vram;
            it.layers += 1;
            left.next();
        }
        if it.layers > 0 {
            used.push(it);
        }
    }
    let stays = total((0..whole - count).map(layer));
    left.next().is_none().then(|| Plan {
        context,
        slots,
        gpu_layers: count,
        of_layers: whole,
        cards: used,
        memory: total([stays, header.input_bytes, computing, PROCESS]),
    })
}

fn weights(header: &Header, layer: u32) -> u64 {
    usize::try_from(layer).ok().and_then(|it| header.layer_bytes.get(it)).copied().unwrap_or(0)
}

/// Keys and values of one layer for all slots.
fn cache(header: &Header, layer: u32, context: u32, slots: u32) -> u64 {
    let layer = usize::try_from(layer).unwrap_or(usize::MAX);
    let heads = header.kv_heads.get(layer).copied().unwrap_or(0);
    let slides = header.slides.get(layer).copied().unwrap_or(false);
    let mut tokens = u64::from(context).next_multiple_of(CELLS);
    if let Some(window) = header.sliding_window.filter(|_| slides) {
        // What is computed at once is kept beside the window itself.
        tokens = tokens.min((u64::from(window) + BATCH).next_multiple_of(CELLS));
    }
    let numbers =
        (u64::from(header.key_length) + u64::from(header.value_length)).saturating_mul(heads.into());
    numbers.saturating_mul(2).saturating_mul(tokens).saturating_mul(slots.into())
}

/// What it computes in: the widest of a layer's values and of the choice among all tokens, and who may see whom.
fn computing(header: &Header, context: u32) -> u64 {
    let attention = u64::from(header.heads).saturating_mul(header.key_length.into());
    let wide = attention.max(header.feed_forward.into());
    let layer = wide.saturating_mul(3).saturating_add(6 * u64::from(header.embedding));
    let values = layer.max(header.vocabulary.into()).saturating_mul(4);
    // A mask of 32 and one of 16 bits for each token that a slot keeps.
    let sees = u64::from(context).next_multiple_of(CELLS) * 6;
    values.saturating_add(sees).saturating_mul(BATCH)
}

/// A header may claim anything: sums end at the greatest number there is.
fn total(bytes: impl IntoIterator<Item = u64>) -> u64 {
    bytes.into_iter().fold(0, u64::saturating_add)
}

impl Plan {
    /// VRAM that it takes on all cards, bytes.
    #[must_use]
    pub fn vram(&self) -> u64 {
        total(self.cards.iter().map(|it| it.vram))
    }
}

/// For people: `all 32 layers on the GPU, 2 × 8,192 tokens, 6.1 GB of VRAM`.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layers = self.of_layers.saturating_sub(1);
        let place = match self.cards.len() {
            0 | 1 => "the GPU".to_owned(),
            count => format!("{count} GPUs"),
        };
        match self.gpu_layers {
            0 => write!(f, "on the processor")?,
            it if it >= self.of_layers => write!(f, "all {layers} layers on {place}")?,
            it => write!(f, "{it} of {layers} layers on {place}, the rest on the processor")?,
        }
        write!(f, ", {} × {} tokens, ", self.slots, grouped(self.context))?;
        match self.cards.is_empty() {
            true => write!(f, "{} of memory", Bytes(self.memory)),
            false if self.gpu_layers >= self.of_layers => write!(f, "{} of VRAM", Bytes(self.vram())),
            false => write!(f, "{} of VRAM and {} of memory", Bytes(self.vram()), Bytes(self.memory)),
        }
    }
}

/// `6.1 GB`, in steps that people count in: 10⁹ bytes.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = self.0.div_ceil(100_000_000);
        write!(f, "{}.{} GB", tenths / 10, tenths % 10)
    }
}

/// `8,192`
fn grouped(number: u32) -> String {
    match (number / 1000, number % 1000) {
        (0, rest) => rest.to_string(),
        (thousands, rest) => format!("{thousands},{rest:03}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::Purpose;

    const GB: u64 = 1_000_000_000;

    /// Eight billion parameters in Q4_K_M: figures as in Llama 3.1 8B.
    fn eight_billion() -> Header {
        Header {
            name: None,
            architecture: "llama".into(),
            size_label: Some("8B".into()),
            quantisation: Some("Q4_K_M"),
            purpose: Purpose::Text,
            layers: 32,
            context: Some(131_072),
            embedding: 4096,
            feed_forward: 14_336,
            heads: 32,
            kv_heads: vec![8; 32],
            key_length: 128,
            value_length: 128,
            sliding_window: None,
            slides: vec![false; 32],
            vocabulary: 128_256,
            experts: 0,
            experts_used: 0,
            chat_template: true,
            layer_bytes: vec![130_000_000; 32],
            input_bytes: 295_000_000,
            output_bytes: 431_000_000,
            parts: 1,
            size: 4_920_000_000,
        }
    }

    fn room(cards: &[u64], memory: u64) -> Room {
        let card = |(at, gb): (usize, &u64)| CardRoom { id: format!("GPU-{at}"), allowed: gb * GB };
        Room {
            cards: cards.iter().enumerate().map(card).collect(),
            memory: Some(memory * GB),
            unified: false,
        }
    }

    fn said(cards: &[u64], memory: u64) -> String {
        let planned = plan(&eight_billion(), Chosen::default(), &room(cards, memory));
        planned.map_or_else(|error| error.to_string(), |it| it.to_string())
    }

    #[test]
    fn a_plan_takes_what_there_is_and_says_so() {
        insta::assert_snapshot!(said(&[24], 32), @"all 32 layers on the GPU, 4 × 8,192 tokens, 9.8 GB of VRAM");
        insta::assert_snapshot!(said(&[8], 32), @"all 32 layers on the GPU, 2 × 8,192 tokens, 7.6 GB of VRAM");
        insta::assert_snapshot!(said(&[6], 32), @"all 32 layers on the GPU, 1 × 4,096 tokens, 6.0 GB of VRAM");
        insta::assert_snapshot!(said(&[4], 32), @"20 of 32 layers on the GPU, the rest on the processor, 1 × 2,048 tokens, 3.9 GB of VRAM and 2.5 GB of memory");
        insta::assert_snapshot!(said(&[4, 4], 32), @"all 32 layers on 2 GPUs, 2 × 4,096 tokens, 7.3 GB of VRAM");
        insta::assert_snapshot!(said(&[], 32), @"on the processor, 2 × 4,096 tokens, 6.5 GB of memory");
        insta::assert_snapshot!(said(&[1], 4), @"does not fit: it takes 5.6 GB of memory, 4.0 GB may be used");
    }

    #[test]
    fn what_the_host_chose_stands() {
        let of = |chosen, cards: &[u64]| plan(&eight_billion(), chosen, &room(cards, 32));
        let chosen = Chosen { context: Some(16_384), slots: Some(1), gpu_layers: None };
        let it = of(chosen, &[24]).unwrap();
        assert_eq!((it.context, it.slots, it.gpu_layers), (16_384, 1, 33));
        let it = of(Chosen { gpu_layers: Some(0), ..Chosen::default() }, &[24]).unwrap();
        assert!(it.cards.is_empty());
        let it = of(Chosen { gpu_layers: Some(10), ..Chosen::default() }, &[24]).unwrap();
        assert_eq!((it.gpu_layers, it.slots), (10, 4));
        let error = of(Chosen { gpu_layers: Some(99), ..Chosen::default() }, &[4]).unwrap_err();
        insta::assert_snapshot!(error, @"does not fit as you chose: 33 layers with 1 × 1,024 tokens take more than the 4.0 GB of VRAM that may be used");
    }

    #[test]
    fn a_model_of_a_short_context_gets_no_longer_one() {
        let header = Header { context: Some(2048), ..eight_billion() };
        assert_eq!(plan(&header, Chosen::default(), &room(&[24], 32)).unwrap().context, 2048);
    }

    #[test]
    fn no_card_is_given_more_than_it_may_hold_and_every_layer_has_a_place() {
        for first in 1..20 {
            for second in 0..8 {
                let room = room(&[first, second], 32);
                let it = plan(&eight_billion(), Chosen::default(), &room).unwrap();
                let placed: u32 = it.cards.iter().map(|it| it.layers).sum();
                assert_eq!(placed, it.gpu_layers);
                for card in &it.cards {
                    let allowed = room.cards.iter().find(|it| it.id == card.id).unwrap().allowed;
                    assert!(card.vram <= allowed, "{card:?} of {allowed}");
                }
            }
        }
    }

    #[test]
    fn a_layer_that_slides_keeps_its_window_only() {
        let header = Header { sliding_window: Some(1024), slides: vec![true; 32], ..eight_billion() };
        let token = 8 * 256 * 2;
        assert_eq!(cache(&header, 0, 8192, 2), token * (1024 + 512) * 2);
        assert_eq!(cache(&header, 0, 1024, 2), token * 1024 * 2);
        assert_eq!(cache(&eight_billion(), 0, 8192, 2), token * 8192 * 2);
    }

    #[test]
    fn absurd_figures_fit_nowhere_and_break_nothing() {
        let header = Header { layer_bytes: vec![u64::MAX / 4; 32], size: u64::MAX, ..eight_billion() };
        assert!(matches!(plan(&header, Chosen::default(), &room(&[24], 32)), Err(NoFit::Memory { .. })));
        let header =
            Header { kv_heads: vec![u32::MAX; 32], key_length: u32::MAX, heads: u32::MAX, ..eight_billion() };
        assert!(plan(&header, Chosen::default(), &room(&[24], 32)).is_err());
    }
}
