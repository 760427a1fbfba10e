//! A daemon of the system bus: what it says, and being told when that changes or the daemon comes or goes.

use std::collections::HashMap;

use futures_util::StreamExt as _;
use futures_util::stream::{Select, select};
use zbus::message::{Message, Type};
use zbus::proxy::{CacheProperties, MethodFlags};
use zbus::zvariant::{DynamicType, OwnedValue, Type as Signature};
use zbus::{Connection, MatchRule, MessageStream, Proxy};

/// Signals that may wait.
const QUEUE: usize = 64;

/// One daemon, whether it is there or not.
pub(super) struct Daemon {
    bus: Connection,
    name: &'static str,
    news: Select<MessageStream, MessageStream>,
}

/// What an object says of itself.
pub(super) struct Properties(HashMap<String, OwnedValue>);

/// Connects to a bus.
pub(super) async fn connect(address: &str) -> zbus::Result<Connection> {
    zbus::connection::Builder::address(address)?.build().await
}

impl Daemon {
    /// Listens to the daemon of this name; its objects lie at `path` and below.
    pub(super) async fn listen(
        bus: &Connection,
        name: &'static str,
        path: &'static str,
    ) -> zbus::Result<Self> {
        let signals = MatchRule::builder().msg_type(Type::Signal).sender(name)?.path_namespace(path)?.build();
        let owners = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender("org.freedesktop.DBus")?
            .member("NameOwnerChanged")?
            .arg(0, name)?
            .build();
        let signals = MessageStream::for_match_rule(signals, bus, Some(QUEUE)).await?;
        let owners = MessageStream::for_match_rule(owners, bus, Some(QUEUE)).await?;
        Ok(Self { bus: bus.clone(), name, news: select(signals, owners) })
    }

    /// Waits for a signal of the daemon's, or that it came or went. `None`: the bus is lost.
    pub(super) async fn next(&mut self) -> Option<Message> {
        self.news.next().await?.ok()
    }

    /// Everything that the object says; `None` where the daemon is not there or does not answer.
    pub(super) async fn properties(&self, path: &str, interface: &str) -> Option<Properties> {
        let asked = self.call(path, "org.freedesktop.DBus.Properties", "GetAll", &interface).await;
        asked
            .inspect_err(|error| tracing::debug!(name = self.name, %error, "a daemon does not answer"))
            .ok()
            .map(Properties)
    }

    /// Calls a method without starting the daemon.
    pub(super) async fn call<B, R>(
        &self,
        path: &str,
        interface: &str,
        method: &str,
        body: &B,
    ) -> zbus::Result<R>
    where
        B: serde::Serialize + DynamicType,
        R: for<'d> zbus::zvariant::DynamicDeserialize<'d> + Signature,
    {
        let proxy: Proxy<'_> = zbus::proxy::Builder::new(&self.bus)
            .destination(self.name)?
            .path(path)?
            .interface(interface)?
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        let answer = proxy.call_with_flags(method, MethodFlags::NoAutoStart.into(), body).await?;
        answer.ok_or(zbus::Error::InvalidReply)
    }
}

impl Properties {
    /// A property, where it is there and of this type.
    pub(super) fn get<T: TryFrom<OwnedValue>>(&self, name: &str) -> Option<T> {
        self.0.get(name)?.try_clone().ok()?.try_into().ok()
    }
}
