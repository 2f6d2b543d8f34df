"""What anybody can measure on their own machine: starts of pyrt's containers beside the floor, other tools and a VM.

``pyrt bench startup`` runs it in a process of its own, on state folders of its own. The benches of the source tree
(`benches/`) stand on the same parts: cases, results, pictures. Nothing of pyrt imports this room.
"""
