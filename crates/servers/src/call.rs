//! What a model server is asked, and what of the answer is there already.

use idlewatt_protocol::message::Endpoint;

/// One request to a model server.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Which endpoint.
    pub endpoint: Endpoint,
    /// OpenAI JSON as the network sent it; only fields on the allow-list are passed on.
    pub body: &'a [u8],
    /// Most completion tokens.
    pub max_tokens: u32,
    /// Whether a stream is to tell the ids of its tokens, where the server can.
    pub ids: bool,
    /// What of the answer was delivered already: the server goes on after it, and sends only what is new.
    pub begun: Option<Begun<'a>>,
}

/// The beginning of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Begun<'a> {
    /// Its text.
    pub text: &'a str,
    /// The ids of exactly this text; empty where they are not known, and the server reads the text anew.
    pub ids: &'a [u32],
}

impl<'a> Call<'a> {
    /// A request for a whole answer.
    #[must_use]
    pub const fn new(endpoint: Endpoint, body: &'a [u8], max_tokens: u32) -> Self {
        Self { endpoint, body, max_tokens, ids: false, begun: None }
    }
}
