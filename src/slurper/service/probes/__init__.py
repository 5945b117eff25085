"""What a check asks a bucket, and what the answers tell about the store.

A source must list (or, with explicit keys, describe one object). It must let us read a byte of an
object: of the first one, or of a later one if the first cannot be read. A target must list, begin
an upload, and take a part of it. A dialect cannot know everything about a store that people run
themselves. The check finds out the rest (`Capabilities`), and the job keeps it.

The job does not need the answers to some questions: those about a second checksum when one can be
used, and those that write objects. Nor must it find what earlier checks have left. These use the
time that is left. They never lead to the refusal of a target.

A store may take more than a second for each answer. So questions that do not need each other's
answers are asked side by side. At a target of unknown make that keeps everything, these are the
rounds:

    | round | an upload           | objects                         | beside them               |
    |-------|---------------------|---------------------------------|---------------------------|
    | 1     |                     |                                 | list the first key        |
    | 2     | begin it            | are versions kept?              | order; uploads once left  |
    | 3     | write three parts   | delete a key that is not there  | objects once left         |
    | 4     |                     | write them                      |                           |
    | 5     | complete it, unless | read and list them; write one   |                           |
    |       | an object is there  | again, unless it is there       |                           |
    | 6     | abort it            | delete them                     |                           |

A check leaves nothing behind. It aborts its uploads. Two questions write objects: which keys and
headers come back as they were written (`specimens`), and whether a write obeys `If-None-Match: *`.
They are asked only

    | of a store                                          | because                              |
    |-----------------------------------------------------|--------------------------------------|
    | whose dialect only assumes it                       | the others are known                 |
    | for a new job, or for a precheck; the condition     | nobody else needs to know            |
    | only for one with `overwrite=false`                 |                                      |
    | that keeps no versions                              | a deleted version, or a marker,      |
    |                                                     | would stay; and one that is written  |
    |                                                     | over is not lost there               |
    | that has let us delete the key before it exists     | the object could not be removed      |
    | that has left time to read and remove the objects   | some would stay                      |
"""
