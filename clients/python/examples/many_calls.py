"""Many calls over one connection, each with a key: started again after a crash of this program, none is done twice.

    python examples/many_calls.py run/agent/agent.sock notes
"""

import asyncio
import sys

import toolkeep


async def main(socket: str, prefix: str) -> None:
    async with toolkeep.Client(socket) as client:
        titles = [f"{prefix} {number}" for number in range(10)]
        replies = await asyncio.gather(
            *(
                client.calls.execute(
                    "notes.add", {"title": title, "body": "Made in bulk."}, idempotency_key=f"bulk/{title}"
                )
                for title in titles
            )
        )
        for title, reply in zip(titles, replies):
            print(title, reply.outcome, "(done before)" if reply.replayed else "")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
