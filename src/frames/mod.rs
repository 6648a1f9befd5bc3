//! How the messages of the agents' link become WebSocket frames and back, as one end of one connection sees it.
//!
//! Version 1 is a text frame of JSON for each message. In version 2 an agent's usage, which is nearly all that is ever said, goes as
//! a binary frame of what changed since the pass before ([`usage`]); everything else stays JSON, where its size does not matter and
//! it can be read by a person. Each end reads both kinds at any time, so only the writer need know what was agreed.

pub mod usage;

use crate::model::link::{FromAgent, ToAgent};

/// The largest frame either side takes.
pub const MAX_FRAME: usize = 16 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Text(String),
    Binary(Vec<u8>),
}

#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("it is no message of the link: {0}")]
    Json(#[from] serde_json::Error),
    #[error("it is a binary frame of a kind ({0}) that this build does not know: update the older of the two")]
    Kind(u8),
    #[error("it ends early or holds what no agent writes")]
    Torn,
}

const USAGE: u8 = 1;

/// The agent's end.
#[derive(Default)]
pub struct AgentEnd {
    version: u32,
    usage: usage::Writer,
}

impl AgentEnd {
    pub fn frame(&mut self, message: &FromAgent) -> Result<Frame, serde_json::Error> {
        match message {
            FromAgent::Usage(batch) if self.version >= 2 => {
                let mut out = vec![USAGE];
                self.usage.write(batch, &mut out);
                Ok(Frame::Binary(out))
            }
            _ => Ok(Frame::Text(serde_json::to_string(message)?)),
        }
    }

    /// Also hears which version was agreed.
    pub fn read(&mut self, text: &str) -> Result<ToAgent, Unreadable> {
        let message = serde_json::from_str(text)?;
        if let ToAgent::Welcome { link_version, .. } = &message {
            self.version = (*link_version).max(1);
        }
        Ok(message)
    }
}

/// The control plane's end.
#[derive(Default)]
pub struct ServerEnd {
    usage: usage::Reader,
}

impl ServerEnd {
    pub fn frame(&mut self, message: &ToAgent) -> Result<Frame, serde_json::Error> {
        Ok(Frame::Text(serde_json::to_string(message)?))
    }

    pub fn read_text(&mut self, text: &str) -> Result<FromAgent, Unreadable> {
        Ok(serde_json::from_str(text)?)
    }

    pub fn read_binary(&mut self, bytes: &[u8]) -> Result<FromAgent, Unreadable> {
        match bytes.split_first() {
            Some((&USAGE, rest)) => Ok(FromAgent::Usage(self.usage.read(rest).ok_or(Unreadable::Torn)?)),
            Some((kind, _)) => Err(Unreadable::Kind(*kind)),
            None => Err(Unreadable::Torn),
        }
    }
}

#[cfg(test)]
mod tests;
