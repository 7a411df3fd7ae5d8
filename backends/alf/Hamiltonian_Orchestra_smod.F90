! The ALF half of the ALF backend: one Hamiltonian, compiled once, for every
! model that bilayer_orchestra can express with U_i <= 0,
!
!   H = sum_{ij,s} h_ij c+_is c_js + sum_i U_i n_i,up n_i,dn - sum_i mu_i n_i
!
! with a real symmetric h.  The model is input, not code: it is read from
! terms.dat (and trial.dat for the projector) in the run directory; the format
! is described in orchestra_input.F90.
!
! Decoupling.  With m = n_up - n_dn and u = |U|,
!
!   exp(dtau u n_up n_dn) = exp(dtau u n / 2) exp(-dtau u m^2 / 2)
!                         = exp(dtau u n / 2) 1/2 sum_{s=+-1} exp(i a s m),
!   cos(a) = exp(-dtau u / 2),
!
! which is exact.  The field couples to the spin with an imaginary constant, so
! the spin-down matrix is the complex conjugate of the spin-up one and the
! weight is |det|^2 >= 0 for any real h, any filling and any set of mu_i.  Only
! flavour 1 (up) is propagated, flavour 2 (down) is its conjugate.
!
! One step is exp(-dtau T/2) exp(-dtau V) exp(-dtau T/2) with T = h - mu + U/2
! on the diagonal, exponentiated as a dense matrix; measurements sit at the
! symmetric point.  The error in dtau is of second order.  With the shifts in T
! rather than beside V it is smaller for densities and pairs (exact check on two
! rungs), though not for the kinetic energy.

submodule (Hamiltonian_main) ham_Orchestra_smod

   use Operator_mod
   use WaveFunction_mod
   use Lattices_v3
   use Observables
   use iso_fortran_env, only: error_unit, iostat_end, iostat_eor

   implicit none

   type, extends(ham_base) :: ham_Orchestra
   contains
      procedure, nopass :: Ham_Set
      procedure, nopass :: Alloc_obs
      procedure, nopass :: Obser
      procedure, nopass :: ObserT
      procedure, nopass :: S0
      procedure, nopass :: weight_reconstruction
      procedure, nopass :: GR_reconstruction
      procedure, nopass :: GRT_reconstruction
#ifdef HDF5
      procedure, nopass :: write_parameters_hdf5
#endif
   end type ham_Orchestra

   ! ALF's parser reads this block.  A declaration that is commented out belongs to
   ! a variable of Hamiltonian_main and only gives its default.
   !#PARAMETERS START# VAR_Orchestra
   real(Kind=Kind(0.d0)) :: dtau  = 0.1d0   ! Imaginary time step
   real(Kind=Kind(0.d0)) :: beta  = 4.d0    ! Inverse temperature; projector: length of the measurement window
   real(Kind=Kind(0.d0)) :: theta = 20.d0   ! Projection time on either side of the window
   !logical :: projector = .false.          ! Ground state at fixed particle number instead of finite temperature
   logical :: measure_pair = .true.         ! Pair_eq
   logical :: measure_green = .true.        ! Green_eq
   logical :: measure_density = .true.      ! Den_eq
   logical :: measure_spin = .true.         ! SpinXY_eq, the spin correlation from S^x and S^y
   logical :: measure_spin_z = .false.      ! SpinZ_eq, the same quantity from S^z
   logical :: measure_pair_susceptibility = .true. ! PairSus_eq, needs Ltau = 1 and finite temperature
   logical :: measure_edge = .false.        ! PairEdge_eq, GreenEdge_eq: projector, half the projection time
   logical :: measure_pair_tau = .false.    ! Pair_tau, needs Ltau = 1; a large file
   !#PARAMETERS END#

   ! A text file being read, with the place for error messages.
   type :: input_file
      character(len=:), allocatable :: name
      integer :: unit = 0
      integer :: line = 0
   end type input_file

   integer, parameter :: dp = kind(0.d0)

   integer :: n_sites
   integer :: n_far          ! slices between the trial state and the window.  ALF's Thtrot, where it
                             ! begins to measure, is the same or, for the edge, half of it.
   real(dp), allocatable :: h(:, :), U(:), mu(:), trial(:, :)

   ! One unit cell that holds all sites: ALF then neither averages over
   ! translations nor transforms to momenta, and an observable is a plain matrix.
   type(Lattice),   target :: Latt
   type(Unit_cell), target :: Latt_unit

   ! Positions of the observables in Obs_eq and Obs_tau; 0 = not measured.
   integer :: i_pair, i_green, i_den, i_sxy, i_sz, i_sus, i_tau, i_tau_bar, i_pair_edge, i_green_edge

contains

   module subroutine Ham_Alloc_Orchestra
      allocate(ham_Orchestra :: ham)
   end subroutine Ham_Alloc_Orchestra

! Written by ALF's own parser from the block above: read_parameters and
! write_parameters_hdf5.
#include "Hamiltonian_Orchestra_read_write_parameters.F90"

! refuse, read_terms, read_trial
#include "orchestra_input.F90"

   subroutine Ham_Set
      call read_parameters()
      call check_parameters()
      call read_terms(n_sites, U, mu, h)

      Ndim  = n_sites
      N_FL  = 2
      N_SUN = 1
      Symm  = .true.
      allocate(Calc_Fl(N_FL))
      Calc_Fl = [.true., .false.]

      n_far = 0
      if (Projector) n_far = nint(theta/dtau)
      Ltrot = nint(beta/dtau) + 2*n_far
      Thtrot = n_far
      if (measure_edge) Thtrot = n_far/2

      call set_lattice()
      call set_hopping()
      call set_interaction()
      if (Projector) then
         call read_trial(n_sites, trial)
         call set_trial()
      end if
      call write_info()
   end subroutine Ham_Set

   ! ALF rounds beta/dtau silently, which simulates another temperature.
   subroutine check_parameters()
      if (.not. (dtau > 0.d0 .and. dtau <= 1.d0)) call refuse('parameters', 0, 'dtau must lie in (0, 1]')
      if (.not. (beta > 0.d0 .and. beta <= 1.d5)) call refuse('parameters', 0, 'beta must be positive')
      if (.not. whole(beta/dtau)) call refuse('parameters', 0, 'beta is not a whole number of steps dtau')
      if (measure_edge .and. .not. Projector) call refuse('parameters', 0, 'measure_edge needs the projector')
      if (.not. Projector) return
      if (.not. (theta > 0.d0 .and. theta <= 1.d5)) call refuse('parameters', 0, 'theta must be positive')
      if (.not. whole(theta/dtau)) call refuse('parameters', 0, 'theta is not a whole number of steps dtau')
   contains
      logical function whole(x)
         real(dp), intent(in) :: x
         whole = nint(x) >= 1 .and. abs(x - nint(x)) < 1.d-6
      end function whole
   end subroutine check_parameters

   subroutine set_lattice()
      real(dp) :: ex(2), ey(2)
      integer :: i
      ex = [1.d0, 0.d0]
      ey = [0.d0, 1.d0]
      call Make_Lattice(ex, ey, ex, ey, Latt)
      Latt_unit%Norb = n_sites
      Latt_unit%N_coord = 1
      allocate(Latt_unit%Orb_pos_p(n_sites, 2))
      Latt_unit%Orb_pos_p = 0.d0
      do i = 1, n_sites          ! a label for plots; the site order is that of terms.dat
         Latt_unit%Orb_pos_p(i, 1) = dble(i)
      end do
   end subroutine set_lattice

   subroutine set_hopping()
      integer :: i, nf
      allocate(Op_T(1, N_FL))
      do nf = 1, N_FL
         call Op_make(Op_T(1, nf), n_sites)
         Op_T(1, nf)%P = [(i, i = 1, n_sites)]
         Op_T(1, nf)%O = cmplx(h, 0.d0, dp)
         do i = 1, n_sites
            ! -mu is the model's, U/2 is the shift of the decoupling
            Op_T(1, nf)%O(i, i) = cmplx(h(i, i) - mu(i) + 0.5d0*U(i), 0.d0, dp)
         end do
         Op_T(1, nf)%g = cmplx(-dtau, 0.d0, dp)
         call Op_set(Op_T(1, nf))
      end do
   end subroutine set_hopping

   subroutine set_interaction()
      integer :: i, n, nf
      real(dp) :: a
      integer, allocatable :: sites(:)
      sites = pack([(i, i = 1, n_sites)], U < 0.d0)
      ! ALF's sweeps need one vertex; without interaction it is one that does
      ! nothing (a = 0).
      if (size(sites) == 0) sites = [1]
      allocate(Op_V(size(sites), N_FL))
      do nf = 1, N_FL
         do n = 1, size(sites)
            a = acos(exp(0.5d0*dtau*U(sites(n))))
            if (nf == 2) a = -a
            call Op_make(Op_V(n, nf), 1)
            Op_V(n, nf)%P(1) = sites(n)
            Op_V(n, nf)%O(1, 1) = cmplx(1.d0, 0.d0, dp)
            Op_V(n, nf)%g = cmplx(0.d0, a, dp)
            Op_V(n, nf)%type = 1           ! a two-valued field
            call Op_set(Op_V(n, nf))
         end do
      end do
   end subroutine set_interaction

   ! The same real orbitals left and right, up and down, so that the down
   ! determinant stays the conjugate of the up one.
   subroutine set_trial()
      integer :: nf, n_part
      n_part = size(trial, 2)
      allocate(WF_L(N_FL), WF_R(N_FL))
      do nf = 1, N_FL
         call WF_alloc(WF_L(nf), n_sites, n_part)
         call WF_alloc(WF_R(nf), n_sites, n_part)
         WF_L(nf)%P = cmplx(trial, 0.d0, dp)
         WF_R(nf)%P = cmplx(trial, 0.d0, dp)
         WF_L(nf)%Degen = 1.d0
         WF_R(nf)%Degen = 1.d0
      end do
   end subroutine set_trial

   subroutine write_info()
#ifdef MPI
      use mpi
      integer :: rank, ierr
#endif
      integer :: unit
#ifdef MPI
      call MPI_Comm_rank(Group_Comm, rank, ierr)
      if (rank /= 0) return
#endif
      open(newunit=unit, file='info', status='unknown', position='append')
      write(unit, '(1x,A)')        'Orchestra: terms.dat format 1'
      write(unit, '(1x,A,I0)')     'Orchestra: sites = ', n_sites
      write(unit, '(1x,A,I0)')     'Orchestra: interacting sites = ', count(U < 0.d0)
      write(unit, '(1x,A,L1)')     'Orchestra: projector = ', Projector
      if (Projector) then
         write(unit, '(1x,A,I0)')     'Orchestra: particles per spin = ', size(trial, 2)
         write(unit, '(1x,A,ES23.16)') 'Orchestra: theta = ', theta
      end if
      write(unit, '(1x,A,ES23.16)') 'Orchestra: beta = ', beta
      write(unit, '(1x,A,ES23.16)') 'Orchestra: dtau = ', dtau
      write(unit, '(1x,A,I0)')     'Orchestra: time slices = ', Ltrot
      close(unit)
   end subroutine write_info

   ! The two values of the field have equal bare weight.
   real(dp) function S0(n, nt, Hs_new)
      integer,     intent(in) :: n, nt
      complex(dp), intent(in) :: Hs_new
      S0 = 1.d0
   end function S0

   ! Flavour 2 (down) from flavour 1 (up): complex conjugation, see the top.

   subroutine weight_reconstruction(weight)
      complex(dp), intent(inout) :: weight(:)
      weight(2) = conjg(weight(1))
   end subroutine weight_reconstruction

   subroutine GR_reconstruction(GR)
      complex(dp), intent(inout) :: GR(Ndim, Ndim, N_FL)
      GR(:, :, 2) = conjg(GR(:, :, 1))
   end subroutine GR_reconstruction

   subroutine GRT_reconstruction(GT0, G0T)
      complex(dp), intent(inout) :: GT0(Ndim, Ndim, N_FL), G0T(Ndim, Ndim, N_FL)
      GT0(:, :, 2) = conjg(GT0(:, :, 1))
      G0T(:, :, 2) = conjg(G0T(:, :, 1))
   end subroutine GRT_reconstruction

! Alloc_obs, Obser, ObserT
#include "orchestra_observables.F90"

end submodule ham_Orchestra_smod
