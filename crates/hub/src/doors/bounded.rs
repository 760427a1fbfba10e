//! A socket whose peer must begin within a time, and must take what it is sent: one that does neither is given up, and with
//! it whatever is kept for it.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Bytes by which a peer has begun: as many as HTTP/2's preface has, and fewer than any request or TLS hello.
const BEGUN: usize = 24;

pub(super) struct Bounded<S> {
    inner: S,
    /// Until it has begun.
    opening: Option<Pin<Box<Sleep>>>,
    read: usize,
    stall: Duration,
    /// Runs while the peer takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Bounded<S> {
    pub(super) fn new(inner: S, begin: Duration, stall: Duration) -> Self {
        Self { inner, opening: Some(Box::pin(sleep(begin))), read: 0, stall, stalled: None }
    }

    /// What became of a write: one that waits may wait for so long.
    fn written<T>(&mut self, cx: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if done.is_ready() {
            self.stalled = None;
            return done;
        }
        let stall = self.stall;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(stall)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing of what it is sent")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let done = Pin::new(&mut self.inner).poll_read(cx, buf);
        let Some(opening) = &mut self.opening else { return done };
        let late = opening.as_mut().poll(cx).is_ready();
        self.read += buf.filled().len() - before;
        if self.read >= BEGUN {
            self.opening = None;
        } else if late && done.is_pending() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not begin")));
        }
        done
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.written(cx, done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.inner).poll_write_vectored(cx, pieces);
        self.written(cx, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    const BEGIN: Duration = Duration::from_secs(65);
    const STALL: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_begin_is_given_up() {
        let (near, mut far) = duplex(1024);
        let mut near = Bounded::new(near, BEGIN, STALL);
        let began = Instant::now();
        far.write_all(b"PRI * HTTP/2").await.unwrap();
        let error = near.read_exact(&mut [0; BEGUN]).await.unwrap_err();
        assert_eq!((error.kind(), began.elapsed()), (io::ErrorKind::TimedOut, BEGIN));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_has_begun_may_be_silent() {
        let (near, mut far) = duplex(1024);
        let mut near = Bounded::new(near, BEGIN, STALL);
        far.write_all(&[b'x'; BEGUN]).await.unwrap();
        near.read_exact(&mut [0; BEGUN]).await.unwrap();
        assert!(tokio::time::timeout(BEGIN * 10, near.read_u8()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_given_up_and_one_that_is_slow_is_not() {
        let (near, mut far) = duplex(64);
        let mut near = Bounded::new(near, BEGIN, STALL);
        let began = Instant::now();
        let reading = async {
            for _ in 0..4 {
                tokio::time::sleep(STALL - Duration::from_secs(1)).await;
                far.read_exact(&mut [0; 64]).await.unwrap();
            }
            std::future::pending::<()>().await;
        };
        let error = tokio::select! {
            sent = near.write_all(&[b'x'; 4096]) => sent.unwrap_err(),
            () = reading => unreachable!(),
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed(), 4 * (STALL - Duration::from_secs(1)) + STALL);
    }
}
