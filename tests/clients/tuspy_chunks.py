"""Chunk by chunk, each with its SHA-1: `tuspy_chunks.py ENDPOINT KEY FILE` prints the upload's address."""
import sys

from tusclient import client

endpoint, key, path = sys.argv[1:]
tus = client.TusClient(endpoint, headers={"Authorization": f"Bearer {key}"})
uploader = tus.uploader(path, chunk_size=800_000, metadata={"filename": "clip.mp4"}, upload_checksum=True)
uploader.upload()
print(uploader.url)
