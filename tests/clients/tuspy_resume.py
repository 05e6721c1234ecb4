"""Stopped in the middle, the server killed and started again, then another client goes on: `tuspy_resume.py ENDPOINT
KEY FILE` prints the address."""
import sys

from tusclient import client

endpoint, key, path = sys.argv[1:]
tus = client.TusClient(endpoint, headers={"Authorization": f"Bearer {key}"})
first = tus.uploader(path, chunk_size=1_000_000, metadata={"filename": "clip.mp4"})
first.upload(stop_at=2_000_000)
for asked in ["kill", "start"]:
    print(asked, flush=True)
    sys.stdin.readline()
second = tus.uploader(path, chunk_size=1_500_000, url=first.url, upload_checksum=True)
assert second.offset == 2_000_000, second.offset
second.upload()
print(second.url)
