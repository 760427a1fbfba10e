//! Signals from house and grid; one file a feed. Today there is one, and it needs no wire: the tariff that the host
//! states. Its arithmetic is `idlewatt-core`'s; feeds that read a meter or ask a market will give the same values.

pub use idlewatt_core::tariff::{CreditValue, Currency, Earnings, Money, MoneyError, Tariff};
