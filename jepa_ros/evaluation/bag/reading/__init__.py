"""Reading a bag for a model: topics, images, latents, recording, situations; and the result bag beside it."""
