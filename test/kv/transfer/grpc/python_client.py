"""
Calls the three methods by a client that protoc has generated of migration.proto.
Arguments: directory of the generated code, URL, secret, block, its bytes in hexadecimal, its layers.
"""
import sys

directory, url, secret, block, data, layers = sys.argv[1:]
sys.path.insert(0, directory)
import migration_pb2 as pb
from connectrpc.errors import ConnectError
from migration_connect import MigrationClientSync


def messages():
    yield pb.WriteRequest(start={"migration_id": "m", "from": "b", "to": "a"})
    yield pb.WriteRequest(blocks=[int(block)], num_layers=int(layers), data=bytes.fromhex(data))


# The server takes nothing compressed.
with MigrationClientSync(url, send_compression=None) as client:
    health = client.health(pb.HealthRequest())
    print(health.instance_id, pb.HealthReply.Status.Name(health.status))
    headers = {"authorization": f"Bearer {secret}"}
    print("written", client.write(messages(), headers=headers).bytes)
    print("received", client.stats(pb.StatsRequest()).bytes_received)
    try:
        client.write(messages())
    except ConnectError as error:
        print(error.code.value, error.message)
