"""What a check asks of a bucket, and what its answers tell of the store.

A source must list (or, with explicit keys, describe one). It must let a byte of an object be read:
of the first, or of one of the next if the first cannot be read. A target must list, begin an upload
and take a part of it. No dialect can know everything of a store that people run themselves: the
check finds out the rest (`Capabilities`), and the job keeps it.

Some questions the job can do without: about a second checksum when one can be used, those that
write objects, and what earlier checks have left. They use the time that is left, and never refuse a
target.

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

Nothing is left behind. Uploads are aborted. Two questions write objects: which keys and headers
come back as they were written (`specimens`), and whether a write obeys `If-None-Match: *`. So they
are asked only

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
