//! Where a plug is, as the host writes it down.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use url::Url;

/// A plug: `shelly://192.168.1.20`, `shelly://192.168.1.20/1` for its second channel, `tasmota://plug.lan`, or
/// `homeassistant://ha.lan:8123/sensor.desk_power?token=FILE` (`homeassistant+https://` where it has a certificate).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlugAddress {
    text: String,
    pub(crate) kind: Kind,
    /// Where it is asked.
    pub(crate) root: Url,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Shelly { channel: u8 },
    Tasmota { channel: u8 },
    HomeAssistant { entity: String, token: PathBuf },
}

impl PlugAddress {
    /// Host, port and path: what tells it from others.
    pub(crate) fn place(&self) -> &str {
        let start = self.text.find("://").map_or(0, |at| at + 3);
        self.text.get(start..).unwrap_or_default().split('?').next().unwrap_or_default()
    }
}

/// Why a text is no plug. The text is not repeated: somebody may have written a password into it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PlugAddressError(&'static str);

impl FromStr for PlugAddress {
    type Err = PlugAddressError;

    fn from_str(text: &str) -> Result<Self, PlugAddressError> {
        let wrong = PlugAddressError;
        let url = Url::parse(text).map_err(|_| wrong("write an address such as shelly://192.168.1.20"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("a password does not belong into the settings"));
        }
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| wrong("the plug's address must follow, such as 192.168.1.20"))?;
        let path = url.path().trim_matches('/');
        let channel = || match path {
            "" => Ok(0),
            _ => path.parse().map_err(|_| wrong("a channel is a number, 0 for the first")),
        };
        let (kind, http, port) = match url.scheme() {
            "shelly" => (Kind::Shelly { channel: channel()? }, "http", 80),
            "tasmota" => (Kind::Tasmota { channel: channel()? }, "http", 80),
            scheme @ ("homeassistant" | "homeassistant+https") => {
                let named = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
                let entity = path.strip_prefix("sensor.").filter(|name| name.bytes().all(named));
                if entity.is_none_or(str::is_empty) {
                    return Err(wrong(
                        "name its sensor, such as homeassistant://ha.lan/sensor.desk_power?token=FILE",
                    ));
                }
                let token =
                    url.query_pairs().find(|(key, _)| key == "token").map(|(_, file)| file.into_owned());
                let token = token.filter(|file| !file.is_empty());
                let token = token
                    .ok_or_else(|| wrong("say which file holds its access token, with ?token=FILE"))?
                    .into();
                let kind = Kind::HomeAssistant { entity: path.to_owned(), token };
                if scheme.ends_with("https") { (kind, "https", 443) } else { (kind, "http", 8123) }
            }
            _ => return Err(wrong("it must begin with shelly://, tasmota:// or homeassistant://")),
        };
        let root = format!("{http}://{host}:{}", url.port().unwrap_or(port));
        let root = Url::parse(&root).map_err(|_| wrong("its host is none"))?;
        Ok(Self { text: text.to_owned(), kind, root })
    }
}

impl fmt::Display for PlugAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plug_is_asked_where_its_address_says() {
        for (text, root, place) in [
            ("shelly://192.168.1.20", "http://192.168.1.20/", "192.168.1.20"),
            ("shelly://plug.lan:8080/1", "http://plug.lan:8080/", "plug.lan:8080/1"),
            ("shelly://[fe80::1]/2", "http://[fe80::1]/", "[fe80::1]/2"),
            ("tasmota://192.168.1.21/", "http://192.168.1.21/", "192.168.1.21/"),
            (
                "homeassistant://ha.lan/sensor.desk_power?token=/home/me/ha.token",
                "http://ha.lan:8123/",
                "ha.lan/sensor.desk_power",
            ),
            (
                "homeassistant+https://ha.example/sensor.x?token=t",
                "https://ha.example/",
                "ha.example/sensor.x",
            ),
        ] {
            let address: PlugAddress = text.parse().unwrap();
            assert_eq!(
                (address.root.as_str(), address.place(), address.to_string().as_str()),
                (root, place, text)
            );
        }
    }

    #[test]
    fn what_is_no_plug_is_refused_with_what_would_be_right() {
        let errors: Vec<String> = [
            "192.168.1.20",
            "http://192.168.1.20",
            "shelly://",
            "shelly://192.168.1.20/one",
            "shelly://admin:secret@192.168.1.20",
            "tasmota://192.168.1.20/300",
            "homeassistant://ha.lan",
            "homeassistant://ha.lan/switch.desk?token=t",
            "homeassistant://ha.lan/sensor.desk/../../config?token=t",
            "homeassistant://ha.lan/sensor.desk_power?bearer=secret",
        ]
        .iter()
        .map(|text| text.parse::<PlugAddress>().unwrap_err().to_string())
        .collect();
        insta::assert_snapshot!(errors.join("\n"));
    }
}
