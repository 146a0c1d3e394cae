"""Show what a call would change, ask whoever runs this, and commit exactly that.

    python examples/preview_and_commit.py run/agent/agent.sock notes.add '{"title": "A", "body": "b"}'
"""

import asyncio
import json
import sys

import toolkeep


async def main(socket: str, tool: str, input: str) -> None:
    async with toolkeep.Client(socket) as client:
        try:
            shown = await client.calls.preview(tool, json.loads(input))
        except toolkeep.Refused as refused:
            for place in refused.fields:
                print(f"{place.pointer} {place.problem}; expected {place.expected}")
            sys.exit(str(refused))
        if shown.plan is None:
            print("nothing to commit:", json.dumps(shown.output))
            return
        for effect in shown.plan.effects:
            print(effect["kind"], effect.get("workspace", ""), effect.get("path", ""))
        if input_yes("commit this?"):
            done = await client.plans.commit(shown.plan.digest)
            if done.approval is not None:
                print("held; waiting for people")
                done = await client.approvals.wait(done.approval.id)
            print(done.outcome, json.dumps(done.output))
        else:
            await client.plans.discard(shown.plan.id)


def input_yes(question: str) -> bool:
    return input(f"{question} [y/N] ").strip().lower() == "y"


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
