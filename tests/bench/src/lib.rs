//! HTTP/1.1 as far as a measurement needs it: little work of its own, so that what is measured is the others'.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes of a connection that were read and not taken yet.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    from: usize,
}

/// The head of a message.
#[derive(Debug)]
pub struct Head {
    /// The first line.
    pub line: String,
    /// Bytes of the body; `None` where it comes in chunks.
    pub length: Option<usize>,
    /// Whether the connection is closed after it.
    pub closes: bool,
}

impl Buffer {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.from..]
    }

    fn take(&mut self, length: usize) -> &[u8] {
        let from = self.from;
        self.from += length;
        &self.bytes[from..self.from]
    }

    /// Reads more.
    ///
    /// # Errors
    /// When the connection is over.
    pub async fn more(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
        if self.from == self.bytes.len() {
            self.bytes.clear();
        } else if self.from > 64 * 1024 {
            self.bytes.drain(..self.from);
        } else {
            return self.read(stream).await;
        }
        self.from = 0;
        self.read(stream).await
    }

    async fn read(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
        match stream.read_buf(&mut self.bytes).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    async fn until(&mut self, stream: &mut (impl AsyncRead + Unpin), end: &[u8]) -> io::Result<&[u8]> {
        loop {
            if let Some(at) = self.rest().windows(end.len()).position(|window| window == end) {
                return Ok(self.take(at + end.len()));
            }
            self.more(stream).await?;
        }
    }

    /// The next head.
    ///
    /// # Errors
    /// When the connection is over, or this is no HTTP.
    pub async fn head(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Head> {
        let head = String::from_utf8_lossy(self.until(stream, b"\r\n\r\n").await?).into_owned();
        let mut lines = head.lines();
        let line = lines.next().unwrap_or_default().to_owned();
        let (mut length, mut chunked, mut closes) = (None, false, false);
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().ok(),
                "transfer-encoding" => chunked = true,
                "connection" => closes = value.eq_ignore_ascii_case("close"),
                _ => {}
            }
        }
        Ok(Head { line, length: if chunked { None } else { length.or(Some(0)) }, closes })
    }

    /// The whole body of a message.
    ///
    /// # Errors
    /// When the connection is over.
    pub async fn body(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        head: &Head,
        mut piece: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        if let Some(length) = head.length {
            return self.exactly(stream, length, &mut piece).await;
        }
        loop {
            let line = self.until(stream, b"\r\n").await?;
            let size = std::str::from_utf8(&line[..line.len() - 2]).ok();
            let size = size.and_then(|text| usize::from_str_radix(text.split(';').next()?.trim(), 16).ok());
            let size = size.ok_or(io::ErrorKind::InvalidData)?;
            self.exactly(stream, size, &mut piece).await?;
            self.exactly(stream, 2, &mut |_| {}).await?;
            if size == 0 {
                return Ok(());
            }
        }
    }

    async fn exactly(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        mut length: usize,
        piece: &mut impl FnMut(&[u8]),
    ) -> io::Result<()> {
        while length > 0 {
            if self.rest().is_empty() {
                self.more(stream).await?;
            }
            let now = length.min(self.rest().len());
            piece(self.take(now));
            length -= now;
        }
        Ok(())
    }
}

/// The value after `--NAME` on the command line, or this.
#[must_use]
pub fn option(name: &str, or: &str) -> String {
    let mut arguments = std::env::args().skip_while(|it| it.strip_prefix("--") != Some(name));
    arguments.nth(1).unwrap_or_else(|| or.to_owned())
}

/// The same as a number.
///
/// # Panics
/// When it is none.
#[must_use]
pub fn number(name: &str, or: u64) -> u64 {
    option(name, &or.to_string()).parse().unwrap_or_else(|_| panic!("--{name} is no number"))
}
