"""StyleGAN2 as a teacher: the generator, inversion of real photographs, and edits by text or by direction."""
