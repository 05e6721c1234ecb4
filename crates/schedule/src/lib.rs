//! Who gets the next worker. Pure: waiting and running work come in, an order goes out.
