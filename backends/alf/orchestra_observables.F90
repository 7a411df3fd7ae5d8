! What is measured.  Included in Hamiltonian_Orchestra_smod.F90.
!
! Every matrix is an ALF observable of one unit cell with N orbitals; entry
! (i, j) belongs to the sites i and j of terms.dat.  The estimators are Wick's
! theorem with the down propagator equal to the conjugate of the up one.  With
! g_ij = <c+_i c_j> and q_ij = <c_i c+_j> of the up spin in one configuration:
!
!   Pair_eq    <Delta+_i Delta_j>, Delta = c_dn c_up        |g_ij|^2
!   Green_eq   <c+_i c_j>, average of the two spins         Re g_ij
!   Den_eq     <n_i n_j>, n = n_up + n_dn, not connected;   4 Re g_ii Re g_jj + 2 Re(g_ij q_ij)
!              its background record holds <n_i>
!   SpinXY_eq  <S^x_i S^x_j> = <S^z_i S^z_j>                Re(g_ij conjg(q_ij)) / 2
!   SpinZ_eq   <S^z_i S^z_j>                                Re(g_ij q_ij) / 2 - Im g_ii Im g_jj
!   Kin_scal   sum_ij,s h_ij <c+_is c_js>                   Pot_scal   sum_i U_i <n_up n_dn>
!   Part_scal  sum_i <n_i>                                  Ener_scal  Kin + Pot, no mu
!
! There is no field, so spin is conserved and both spin estimators have the same
! mean.  One configuration breaks the symmetry along z only, which makes SpinXY the
! quieter one: off the diagonal its error was 4 to 13 times smaller (4 to 12 rungs,
! beta = 4 to 6); on the diagonal both are the same number.
!
!   PairEdge_eq, GreenEdge_eq  (projector) Pair_eq and Green_eq about theta/2 away from the trial
!              state instead of theta or more: where they differ, theta is too short
!
! All these matrices are symmetric in the mean, not in a bin: (M + M^T) / 2 is the
! better estimator.
!
!   Pair_tau   <Delta+_i(tau) Delta_j(0)>, tau = 0 ... beta in steps of dtau
!   PairSus_eq its integral over tau from 0 to beta (trapezoids)
!   PairBar_tau (projector only) <Delta_i(tau) Delta+_j(0)>; at finite temperature
!              it is Pair_tau at beta - tau with i and j exchanged, and is averaged in

   subroutine Alloc_obs(Ltau)
      integer, intent(in) :: Ltau
      integer :: n_eq, n_tau
      logical :: displaced

      allocate(Obs_scal(4))
      call make_scalar(1, 'Kin')
      call make_scalar(2, 'Pot')
      call make_scalar(3, 'Part')
      call make_scalar(4, 'Ener')

      displaced = Ltau == 1
      if (displaced .and. measure_edge) then
         call refuse('parameters', 0, 'measure_edge and time-displaced observables exclude each other')
      end if
      n_eq = 0
      i_pair  = next_if(measure_pair, n_eq)
      i_green = next_if(measure_green, n_eq)
      i_den   = next_if(measure_density, n_eq)
      i_sxy   = next_if(measure_spin, n_eq)
      i_sz    = next_if(measure_spin_z, n_eq)
      i_sus   = next_if(displaced .and. measure_pair_susceptibility .and. .not. Projector, n_eq)
      i_pair_edge  = next_if(measure_edge .and. measure_pair, n_eq)
      i_green_edge = next_if(measure_edge .and. measure_green, n_eq)
      allocate(Obs_eq(n_eq))
      call make_matrix(Obs_eq, i_pair,  'Pair',    1)
      call make_matrix(Obs_eq, i_green, 'Green',   1)
      call make_matrix(Obs_eq, i_den,   'Den',     1)
      call make_matrix(Obs_eq, i_sxy,   'SpinXY',  1)
      call make_matrix(Obs_eq, i_sz,    'SpinZ',   1)
      call make_matrix(Obs_eq, i_sus,   'PairSus', 1)
      call make_matrix(Obs_eq, i_pair_edge,  'PairEdge',  1)
      call make_matrix(Obs_eq, i_green_edge, 'GreenEdge', 1)

      n_tau = 0
      i_tau     = next_if(displaced .and. measure_pair_tau, n_tau)
      i_tau_bar = next_if(displaced .and. measure_pair_tau .and. Projector, n_tau)
      allocate(Obs_tau(n_tau))
      call make_matrix(Obs_tau, i_tau,     'Pair',    Ltrot + 1 - 2*Thtrot)
      call make_matrix(Obs_tau, i_tau_bar, 'PairBar', Ltrot + 1 - 2*Thtrot)
   end subroutine Alloc_obs

   integer function next_if(wanted, n)
      logical, intent(in) :: wanted
      integer, intent(inout) :: n
      next_if = 0
      if (.not. wanted) return
      n = n + 1
      next_if = n
   end function next_if

   subroutine make_scalar(i, name)
      integer, intent(in) :: i
      character(len=*), intent(in) :: name
      character(len=64) :: file
      file = name
      call Obser_Vec_make(Obs_scal(i), 1, file)
   end subroutine make_scalar

   subroutine make_matrix(list, i, name, n_tau)
      type(Obser_Latt), intent(inout) :: list(:)
      integer, intent(in) :: i, n_tau
      character(len=*), intent(in) :: name
      character(len=64) :: file
      character(len=2) :: channel
      if (i == 0) return
      file = name
      channel = 'PP'                     ! only a hint for ALF's own MaxEnt
      if (n_tau == 1) channel = '--'
      if (n_tau > 1 .and. Projector) channel = 'T0'
      call Obser_Latt_make(list(i), n_tau, file, Latt, Latt_unit, channel, dtau)
   end subroutine make_matrix

   ! Count one measurement and return its weight (ALF's rule for a phase).
   subroutine start_matrix(obs, sgn)
      type(Obser_Latt), intent(inout) :: obs
      real(dp), intent(in) :: sgn
      obs%N = obs%N + 1
      obs%Ave_sign = obs%Ave_sign + sgn
   end subroutine start_matrix

   subroutine Obser(GR, Phase, Ntau, Mc_step_weight)
      complex(dp), intent(in) :: GR(Ndim, Ndim, N_FL)      ! <c_i c+_j>
      complex(dp), intent(in) :: Phase
      integer,     intent(in) :: Ntau
      real(dp),    intent(in) :: Mc_step_weight
      complex(dp) :: weight, g(Ndim, Ndim), value(4)
      real(dp) :: sgn, kin, pot, part
      integer :: i, j

      sgn = sign(1.d0, real(Phase, dp))*Mc_step_weight
      weight = sgn*Phase/real(Phase, dp)

      g = -transpose(GR(:, :, 1))
      do i = 1, Ndim
         g(i, i) = g(i, i) + 1.d0
      end do

      if (Projector .and. (Ntau <= n_far .or. Ntau > Ltrot - n_far)) then
         if (at_edge(Ntau)) call measure_at_edge(g, sgn, weight)
         return
      end if

      kin = 2.d0*sum(h*real(g, dp))
      pot = 0.d0
      part = 0.d0
      do i = 1, Ndim
         pot = pot + U(i)*abs2(g(i, i))
         part = part + 2.d0*real(g(i, i), dp)
      end do
      value = weight*[kin, pot, part, kin + pot]
      do i = 1, size(Obs_scal)
         Obs_scal(i)%N = Obs_scal(i)%N + 1
         Obs_scal(i)%Ave_sign = Obs_scal(i)%Ave_sign + sgn
         Obs_scal(i)%Obs_vec(1) = Obs_scal(i)%Obs_vec(1) + value(i)
      end do

      if (i_pair > 0) then
         call start_matrix(Obs_eq(i_pair), sgn)
         do j = 1, Ndim
            Obs_eq(i_pair)%Obs_Latt(1, 1, :, j) = Obs_eq(i_pair)%Obs_Latt(1, 1, :, j) + weight*abs2(g(:, j))
         end do
      end if
      if (i_green > 0) then
         call start_matrix(Obs_eq(i_green), sgn)
         Obs_eq(i_green)%Obs_Latt(1, 1, :, :) = Obs_eq(i_green)%Obs_Latt(1, 1, :, :) + weight*real(g, dp)
      end if
      if (i_den > 0) then
         call start_matrix(Obs_eq(i_den), sgn)
         do j = 1, Ndim
            do i = 1, Ndim
               Obs_eq(i_den)%Obs_Latt(1, 1, i, j) = Obs_eq(i_den)%Obs_Latt(1, 1, i, j) &
                  + weight*(4.d0*real(g(i, i), dp)*real(g(j, j), dp) + 2.d0*real(g(i, j)*GR(i, j, 1), dp))
            end do
            Obs_eq(i_den)%Obs_Latt0(j) = Obs_eq(i_den)%Obs_Latt0(j) + weight*2.d0*real(g(j, j), dp)
         end do
      end if
      if (i_sxy > 0) then
         call start_matrix(Obs_eq(i_sxy), sgn)
         do j = 1, Ndim
            Obs_eq(i_sxy)%Obs_Latt(1, 1, :, j) = Obs_eq(i_sxy)%Obs_Latt(1, 1, :, j) &
               + weight*0.5d0*real(g(:, j)*conjg(GR(:, j, 1)), dp)
         end do
      end if
      if (i_sz > 0) then
         call start_matrix(Obs_eq(i_sz), sgn)
         do j = 1, Ndim
            do i = 1, Ndim
               Obs_eq(i_sz)%Obs_Latt(1, 1, i, j) = Obs_eq(i_sz)%Obs_Latt(1, 1, i, j) &
                  + weight*(0.5d0*real(g(i, j)*GR(i, j, 1), dp) - aimag(g(i, i))*aimag(g(j, j)))
            end do
         end do
      end if
   end subroutine Obser

   ! Whether slice Ntau lies in the first or last stretch of what ALF measures, a quarter of the
   ! window long.
   logical function at_edge(Ntau)
      integer, intent(in) :: Ntau
      integer :: distance, length
      distance = min(Ntau, Ltrot + 1 - Ntau)
      length = min(max(1, (Ltrot - 2*n_far)/4), n_far - n_far/2)
      at_edge = distance > n_far/2 .and. distance <= n_far/2 + length
   end function at_edge

   subroutine measure_at_edge(g, sgn, weight)
      complex(dp), intent(in) :: g(Ndim, Ndim), weight
      real(dp), intent(in) :: sgn
      integer :: j
      if (i_pair_edge > 0) then
         call start_matrix(Obs_eq(i_pair_edge), sgn)
         do j = 1, Ndim
            Obs_eq(i_pair_edge)%Obs_Latt(1, 1, :, j) = Obs_eq(i_pair_edge)%Obs_Latt(1, 1, :, j) + weight*abs2(g(:, j))
         end do
      end if
      if (i_green_edge > 0) then
         call start_matrix(Obs_eq(i_green_edge), sgn)
         Obs_eq(i_green_edge)%Obs_Latt(1, 1, :, :) = Obs_eq(i_green_edge)%Obs_Latt(1, 1, :, :) + weight*real(g, dp)
      end if
   end subroutine measure_at_edge

   ! GT0 = <T c_i(tau) c+_j(0)>, G0T = <T c_i(0) c+_j(tau)>, so that
   !   <Delta+_i(tau) Delta_j(0)> = |G0T_ji|^2,  <Delta_j(tau) Delta+_i(0)> = |GT0_ji|^2,
   ! and at finite temperature the second at tau is the first at beta - tau.
   subroutine ObserT(NT, GT0, G0T, G00, GTT, Phase, Mc_step_weight)
      integer,     intent(in) :: NT
      complex(dp), intent(in) :: GT0(Ndim, Ndim, N_FL), G0T(Ndim, Ndim, N_FL)
      complex(dp), intent(in) :: G00(Ndim, Ndim, N_FL), GTT(Ndim, Ndim, N_FL)
      complex(dp), intent(in) :: Phase
      real(dp),    intent(in) :: Mc_step_weight
      complex(dp) :: weight
      real(dp) :: sgn, early(Ndim, Ndim), late(Ndim, Ndim), step
      integer :: n_tau

      sgn = sign(1.d0, real(Phase, dp))*Mc_step_weight
      weight = sgn*Phase/real(Phase, dp)
      n_tau = Ltrot - 2*Thtrot
      early = transpose(abs2(G0T(:, :, 1)))
      late  = transpose(abs2(GT0(:, :, 1)))

      if (i_sus > 0) then
         if (NT == 0) call start_matrix(Obs_eq(i_sus), sgn)
         step = dtau
         if (NT == 0 .or. NT == n_tau) step = 0.5d0*dtau
         Obs_eq(i_sus)%Obs_Latt(1, 1, :, :) = Obs_eq(i_sus)%Obs_Latt(1, 1, :, :) + weight*step*0.5d0*(early + late)
      end if
      if (i_tau > 0) then
         if (NT == 0) call start_matrix(Obs_tau(i_tau), sgn)
         if (Projector) then
            call add(Obs_tau(i_tau), NT, weight*early)
            if (NT == 0) call start_matrix(Obs_tau(i_tau_bar), sgn)
            call add(Obs_tau(i_tau_bar), NT, weight*transpose(late))
         else
            call add(Obs_tau(i_tau), NT, 0.5d0*weight*early)
            call add(Obs_tau(i_tau), n_tau - NT, 0.5d0*weight*late)
         end if
      end if
   contains
      subroutine add(obs, t, matrix)
         type(Obser_Latt), intent(inout) :: obs
         integer, intent(in) :: t
         complex(dp), intent(in) :: matrix(:, :)
         obs%Obs_Latt(1, t + 1, :, :) = obs%Obs_Latt(1, t + 1, :, :) + matrix
      end subroutine add
   end subroutine ObserT

   elemental real(dp) function abs2(z)
      complex(dp), intent(in) :: z
      abs2 = real(z, dp)**2 + aimag(z)**2
   end function abs2
