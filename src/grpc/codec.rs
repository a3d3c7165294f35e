//! How messages become bytes: protobuf, in buffers that begin small, because most streams are idle most of the time; and what
//! somebody gets whose bytes are no message.

use std::marker::PhantomData;

use prost::Message;
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder},
};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

use super::status;
use crate::error::{Error, Invalid};

/// The codec of the generated client and server: tonic's own, with buffers of our size and errors of our own.
pub(super) struct SmallBuffers<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for SmallBuffers<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for SmallBuffers<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = Strict<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(settings())
    }

    fn decoder(&mut self) -> Self::Decoder {
        Strict(ProstCodec::<T, U>::raw_decoder(settings()))
    }
}

/// Tells a peer whose message is malformed that this is its own fault. tonic would take the blame with INTERNAL, as it does still
/// where there is no whole message to be decoded.
pub(super) struct Strict<U>(ProstDecoder<U>);

impl<U: Message + Default> Decoder for Strict<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        self.0.decode(bytes).map_err(|cause| {
            tracing::debug!(cause = cause.message(), "a message is malformed");
            status::from(Error::Invalid(Invalid::Body))
        })
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

fn settings() -> BufferSettings {
    BufferSettings::new(BEGIN, BATCH)
}

/// Bytes of a buffer when a call begins; it grows to what its messages need. tonic would begin each with 8 KiB.
const BEGIN: usize = 64;

/// Bytes of messages that are enough to be written, though further ones are ready.
const BATCH: usize = 32 * 1024;
