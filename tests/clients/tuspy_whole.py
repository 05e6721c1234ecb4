"""The whole file in one go: `tuspy_whole.py ENDPOINT KEY FILE` prints the upload's address."""
import sys

from tusclient import client

endpoint, key, path = sys.argv[1:]
tus = client.TusClient(endpoint, headers={"Authorization": f"Bearer {key}"})
uploader = tus.uploader(path, metadata={"filename": "clip.mp4", "empty": ""}, upload_checksum=True)
uploader.upload()
print(uploader.url)
